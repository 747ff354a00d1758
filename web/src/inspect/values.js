// Values of a program in words.
import { bytes, number } from "../components/format.js";

/** A quantization: "scale 0.0235, zero point −3". */
export function quantization(one) {
  if (one.kind === "per token") return "per token, at run time";
  const zero = `zero point ${number(one.zero_point ?? 0)}`;
  if (one.kind === "per tensor") return `scale ${number(one.least, 4)}, ${zero}`;
  return `${number(one.count, 15)} scales ${one.kind}, ${number(one.least)} to ${number(one.largest)}, ${zero}`;
}

const named = (one) => (one.name ? ` ${one.name}` : "");

/** A value in one line: "#12 qint8 1 × 56 × 56 × 64 (201 kB), scale ...". */
export function valueText(one) {
  if (!one) return "–";
  if (!one.dtype) return `#${one.id ?? 0}${named(one)} ${one.text}`;
  const shape = one.shape?.length ? one.shape.join(" × ") : "scalar";
  const kind = one.kind === "intermediate" ? "" : `, ${one.kind}`;
  const layout = one.dim_order ? `, dim order ${one.dim_order.join(" ")}` : "";
  const scales = one.quantization ? `, ${quantization(one.quantization)}` : "";
  return `#${one.id ?? 0}${named(one)} ${one.dtype} ${one.dynamic ? "at most " : ""}${shape} (${bytes(one.bytes ?? 0)})${kind}${layout}${scales}`;
}

/** What a search for a tensor looks through. */
export const valueWords = (one) => (one ? `#${one.id ?? 0} ${one.name ?? ""} ${one.dtype ?? ""} ${(one.shape ?? []).join("x")} [${(one.shape ?? []).join(", ")}]` : "");
