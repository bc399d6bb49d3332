# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # int8: what a scale costs, and where it comes from
#
# **You will** bring a small network to int8, choose its ranges three ways, look for the layer that suffers most, and
# export a file that ONNX Runtime runs in integers.
#
# **You will learn** why int8 needs data before it can begin, what an outlier does to everything beside it, and that fewer
# bits are not always less time.
#
# **You need** this repository with its environment (`make lab` opens this page in it), ten minutes, and no GPU. The
# [quickstart](01_quickstart.py) explains the panel.
#
# Each step asks a question. Say what you expect before you go on.

# %%
from pathlib import Path

import numpy as np
import onnxruntime

import explorer

folders = (Path.cwd(), *Path.cwd().parents)
repository = next(folder for folder in folders if (folder / "sample_models/digits_transformer.onnx").exists())
samples = repository / "sample_models"
out = repository / "out" / "int8"
out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## 1. A format without an exponent
#
# fp16 spends five bits on the exponent: small numbers have small steps, large numbers large ones. An int8 has 256 codes
# and one *scale* for a whole tensor: every step is of the same size. `digits_transformer` is the network that fp16 breaks,
# because its squares leave the range.
#
# > **Your prediction:** fp16 leaves it 10 % of its accuracy (it guesses). And int8, with a quarter of fp32's bits?

# %%
x = explorer.open(
    samples / "digits_transformer.onnx", inputs=samples / "digits_transformer.npz", target="onnxruntime-cpu"
)
x.calibrate(samples / "digits_train.npz", cache=False)
x.plan = explorer.Plan(format="int8")
found = x.accuracy()
print(f"fp32 {found.exact:.2%}   int8 {found.plan:.2%}   ({found.provenance})")

assert found.exact - found.plan < 0.01

# %% [markdown]
# Nothing breaks. A scale fits any range, so int8 cannot overflow: it can only be coarse. And `Pow` and `ReduceMean`, which
# broke in fp16, have no int8 kernel, so they stay in fp32:

# %%
decisions = x.decisions()
formats = [each.format for each in decisions]
print(f"{formats.count('int8')} of {len(formats)} layers in int8")
print(decisions["blocks/0/norm1/Pow"].reason)

assert decisions["blocks/0/norm1/Pow"].format == "fp32"

# %% [markdown]
# ## 2. Where scales come from
#
# The second line above ran 400 images of the *training* set through the model and looked at every tensor. Weights need none
# of that: their largest value is known.
#
# > **Your prediction:** why not calibrate on the test set, which is at hand?

# %%
print(x.calibration.description)
print(f"image: codes in steps of {x.calibration.scale('image'):.5f}")

assert x.calibration.rows == 400
assert np.isclose(x.calibration.scale("image"), 1 / 127, rtol=1e-3)

# %% [markdown]
# Because the ranges would have seen the images that judge them, and the accuracy would flatter. (Here, by little. Try it.)
#
# ## 3. Which range?
#
# Three methods: the largest value (`minmax`), the value that 99.99 % stay below (`percentile`), the range whose histogram
# loses least information (`entropy`, TensorRT's).
#
# > **Your prediction:** one tensor has a single outlier, ten times all others. Which method gives it the finest steps, and what
# > becomes of the outlier?

# %%
errors = {}
other = x.fork()  # results are shared, so the last calibration is the one that holds
for method in ("minmax", "entropy", "percentile"):
    other.calibrate(samples / "digits_train.npz", method=method, cache=False)
    errors[method] = float(other.output_error().iloc[0].sqnr_db)
    print(f"{method:10}  output SQNR {errors[method]:.1f} dB   accuracy {other.accuracy().plan:.2%}")

assert min(errors.values()) > 25

# %% [markdown]
# Cutting an outlier off makes the steps finer for all others, and the outlier wrong by a lot. Which of the two weighs more
# depends on the model: try them all.
#
# ## 4. Who loses most?
#
# > **Your prediction:** is it a layer with large values, with small ones, or with both in one tensor?

# %%
table = x.errors()
worst = table[table.format == "int8"].sort_values("local_sqnr_db").head(5)
worst[["id", "op", "local_sqnr_db", "acc_sqnr_db"]]

# %%
layer = worst.id.iloc[0]
x.plan = x.plan.block(layers=[layer])
print(
    f"without {layer}: output SQNR {x.output_error().iloc[0].sqnr_db:.1f} dB instead of {errors['percentile']:.1f} dB"
)

assert x.decisions()[layer].format == "fp32"

# %% [markdown]
# ## 5. Take it with you, and time it
#
# The file holds QuantizeLinear and DequantizeLinear around each int8 layer. ONNX Runtime finds them and runs integers.

# %%
y = explorer.open(samples / "lenet5_digits.onnx", inputs=samples / "lenet5_digits.npz", target="onnxruntime-cpu")
y.calibrate(samples / "digits_train.npz", cache=False)
y.plan = explorer.Plan(format="int8")
y.export(out / "lenet5_digits.int8.onnx")
sizes = [path.stat().st_size for path in (samples / "lenet5_digits.onnx", out / "lenet5_digits.int8.onnx")]
print(f"{sizes[0]:,} bytes become {sizes[1]:,}")

session = onnxruntime.InferenceSession(out / "lenet5_digits.int8.onnx", providers=["CPUExecutionProvider"])
with np.load(samples / "lenet5_digits.npz") as arrays:
    (scores,) = session.run(None, {"image": arrays["image"]})
    right = float((scores.argmax(axis=1) == arrays["labels"]).mean())
print(f"accuracy in integers {right:.2%}, emulated {y.accuracy().plan:.2%}, fp32 {y.accuracy().exact:.2%}")

assert sizes[1] < sizes[0] / 2
assert abs(right - y.accuracy().plan) < 0.01

# %% [markdown]
# > **Your prediction:** a quarter of the bits: is it four times as fast?
#
# On the CPU int8 is real arithmetic, so its time may be measured here (that of fp16 may not: the CPU computes it in fp32).
# For a network this small the answer is sobering, and `docs/int8.md` has it: quantising what goes in and out of a layer
# costs as much as the layer. Large convolutions gain. Measure your own model before you decide.
