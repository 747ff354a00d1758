// Numbers as people read them, with units. Python's infinities and NaN come as strings.

/** A number out of the data: numbers, or "Infinity", "-Infinity", "NaN". */
export const toNumber = (x) => (x === null || x === undefined ? NaN : Number(x));

const missing = (x) => x === null || x === undefined || Number.isNaN(Number(x));

/** `digits` significant digits, no needless zeros. */
export function number(x, digits = 3) {
  if (missing(x)) return "–";
  const value = Number(x);
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e15)) {
    return value.toExponential(digits - 1).replace("-", "−");
  }
  return value.toLocaleString("en", { maximumSignificantDigits: digits }).replace("-", "−");
}

/** Whole numbers with separators. */
export const count = (x) => (missing(x) ? "–" : Math.round(Number(x)).toLocaleString("en"));

function scaled(x, steps, digits) {
  if (missing(x)) return "–";
  const value = Number(x);
  const fitting = value === 0 ? steps.find(([step]) => step === 1) : steps.find(([step]) => Math.abs(value) >= step);
  const [size, unit] = fitting ?? steps[steps.length - 1];
  return `${number(value / size, digits)} ${unit}`;
}

/** Decimal units, as file sizes are given: 13,990,000 -> 14 MB. */
export const bytes = (x) => scaled(x, [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]], 3);

/** From seconds: s, ms, µs or ns. */
export const seconds = (x) => scaled(x, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]], 3);

/** From operations a second: 1.2e10 -> 12 GFLOP/s. */
export const flops = (x) => scaled(x, [[1e12, "TFLOP/s"], [1e9, "GFLOP/s"], [1e6, "MFLOP/s"], [1, "FLOP/s"]], 3);

/** From bytes a second. */
export const bandwidth = (x) => scaled(x, [[1e9, "GB/s"], [1e6, "MB/s"], [1, "B/s"]], 3);

/** From a share: 0.123 -> 12.3 %. */
export const percent = (x) => (missing(x) ? "–" : `${number(Number(x) * 100, 3)} %`);

export const decibels = (x) => (missing(x) ? "–" : `${number(x, 3)} dB`);

/** [1, 3, 224, 224] -> 1 × 3 × 224 × 224 */
export const shape = (sizes) => (sizes && sizes.length ? sizes.join(" × ") : "scalar");
