import { describe, expect, it } from "vitest";
import { headAndTail, plotlyText, shorten, stem, visible } from "./names";

describe("names", () => {
  it("show what would be invisible or turn text around, and leave emoji whole", () => {
    expect(visible("a\nb\u202ec\u0000")).toBe("a␊b\ufffdc␀");
    expect(visible("👩‍🔬")).toBe("👩‍🔬");
  });

  it("lose their middle when they are long, fast even at a megabyte", () => {
    expect(shorten("encoder/layer.11/attention/MatMul", 16)).toBe("encoder/…/MatMul");
    expect(shorten("x".repeat(1e6), 40)).toHaveLength(40);
    expect(headAndTail("blocks/0/attention/projection/MatMul_12").join("")).toBe(
      "blocks/0/attention/projection/MatMul_12",
    );
  });

  it("are no markup for plotly, no entity and no TeX", () => {
    expect(plotlyText("<b>&amp;$x$")).toBe("&#60;b&#62;&#38;amp;&#36;x&#36;");
  });

  it("become file names without folders and ending", () => {
    expect(stem("/home/a b/../My Net;rm.onnx")).toBe("My_Net_rm");
    expect(stem("<>")).toBe("model");
    expect(stem("")).toBe("model");
  });
});
