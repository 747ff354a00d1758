/* Tiles of a product in fp32, panel by panel. A file that includes this has defined WIDTH, the floats
 * of a vector, and `panel_of(tile, rows, vectors, panel, columns)`, which makes `columns` of them. */
PK_INLINE void tile_of(const struct pk_f32_tile *tile, const size_t rows, const size_t vectors)
{
    const size_t width = vectors * WIDTH;
    for (size_t panel = 0; panel * width < tile->columns; panel++)
        panel_of(tile, rows, vectors, panel, pk_min(tile->columns - panel * width, width));
}

#define TILE(rows)                                                                                 \
    static void tile_##rows##x1(const struct pk_f32_tile *tile) { tile_of(tile, rows, 1); }        \
    static void tile_##rows##x2(const struct pk_f32_tile *tile) { tile_of(tile, rows, 2); }
