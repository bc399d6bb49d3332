/** Causes of "not faster" that a made-up exploration has tested. */
import type { FindingState } from "../protocol";

const cause = (
  id: string,
  title: string,
  verdict: FindingState["verdict"],
  text: string,
  evidence: string,
): FindingState => {
  const tone = verdict === "confirmed" ? "warn" : "note";
  return { id, tone, title, text, evidence, layers: [], fix: "", verdict, code: "" };
};

export const CAUSES: FindingState[] = [
  cause(
    "launch",
    "Most kernels are too short for the GPU",
    "confirmed",
    "118 of 144 kernels take less time than their launch: fp16 cannot make them faster.",
    "launch 2.5 µs; median kernel 1.1 µs (predicted: roofline of H100)",
  ),
  cause("hardware", "The hardware has no fast fp16", "ruled out", "The H100 does fp16 at 16 times its fp32 rate.", ""),
  cause(
    "fallback",
    "Layers fell back to fp32",
    "ruled out",
    "All layers that the plan runs in fp16 have kernels.",
    "0 of 144 layers without a kernel",
  ),
  cause("casts", "Casts eat the gain", "ruled out", "12 casts take 1.1 % of the time.", ""),
  cause("host", "The host is the bottleneck", "untested", "That needs a run on the device; this machine has none.", ""),
];
