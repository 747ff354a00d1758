/* Stripes cut into tiles of up to ROWS rows by two panels, for files that include this: they have
 * defined ROWS and `run(tile, pixel, rows, panels, form)`. */
PK_INLINE void run_all(const struct pk_qs8_tile *t, size_t pixels, const int panels,
                       const enum pk_qs8_form form)
{
    size_t p = 0;
    for (; p + ROWS <= pixels; p += ROWS)
        run(t, p, ROWS, panels, form);
#if ROWS > 4
    if (pixels - p >= 4) {
        run(t, p, 4, panels, form);
        p += 4;
    }
#endif
    if (pixels - p >= 2) {
        run(t, p, 2, panels, form);
        p += 2;
    }
    if (pixels - p)
        run(t, p, 1, panels, form);
}

PK_INLINE void run_form(const struct pk_qs8_tile *t, size_t pixels, const enum pk_qs8_form form)
{
    if (pixels == 1) {
        const struct pk_qs8_tile rest = pk_qs8_next_panel(t, LANES, form);
        run(t, 0, 1, 1, form);
        if (t->channels > LANES)
            run(&rest, 0, 1, 1, form);
    } else if (t->channels > LANES) {
        run_all(t, pixels, 2, form);
    } else {
        run_all(t, pixels, 1, form);
    }
}

static void tiles(const struct pk_qs8_tile *t, size_t pixels, enum pk_qs8_form form)
{
    if (form == PK_QS8_DYNAMIC)
        run_form(t, pixels, PK_QS8_DYNAMIC);
    else
        run_form(t, pixels, PK_QS8_PREPARED);
}
