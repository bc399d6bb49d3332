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
# # Quickstart: the network that fp16 breaks, and the twenty layers that save it
#
# **You will** open a small trained transformer, run all of it in half precision, see its accuracy collapse, find the
# layers to blame, keep just these in fp32, and export a model that predicts exactly as before.
#
# **You will learn** to read the tables `errors()` and `ranges()`, to tell a layer that *breaks* from a layer that only
# *passes on* what it was given, and why the obvious blacklist is not enough.
#
# **You need** this repository with its environment (`make lab` opens this page in it), ten minutes, and no GPU.
#
# Each step asks a question. Say what you expect before you run the cell below it: being wrong is how this sticks.

# %%
from pathlib import Path

import onnxruntime
import plotly.graph_objects as go

import explorer

folders = (Path.cwd(), *Path.cwd().parents)
repository = next(folder for folder in folders if (folder / "sample_models/digits_transformer.onnx").exists())
samples = repository / "sample_models"
out = repository / "out" / "quickstart"
out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## 1. What does fp16 do to the accuracy?
#
# The model reads 8 x 8 images of digits: two transformer blocks, 113 layers, 98.9% of 360 test images right. Its values
# stay below 9,000 where the blocks hand them on, and fp16 reaches 65,504.
#
# > **Your prediction:** with every layer in fp16, is the accuracy about 98%, 90%, 50%, or 10%?

# %%
x = explorer.open(samples / "digits_transformer.onnx", inputs=samples / "digits_transformer.npz")
x

# %%
full = x.accuracy()
print(f"fp32 {full.exact:.2%}   fp16 {full.plan:.2%}   ({full.provenance})")

assert full.exact > 0.98
assert full.plan < 0.15

# %% [markdown]
# Ten classes, one in ten right: it guesses. And nothing looks broken from outside. There is no NaN in the output, no
# warning from any runtime, and a file that is a third smaller.
#
# "Emulated" tells how the number came to be: every tensor is rounded to fp16 as a GPU would store it. Running an fp16
# model on ONNX Runtime's CPU provider would *not* show this, for it computes in fp32 and skips most of the rounding.

# %%
x.output_error()

# %% [markdown]
# ## 2. Which layers break?
#
# `errors()` has one row a layer. `local_sqnr_db` is the error of a layer when *only that layer* runs in fp16 and its
# inputs are exact; `acc_sqnr_db` when the whole plan does. About 70 dB is what rounding to fp16 costs. `-inf` means that
# the layer returned infinities.
#
# > **Your prediction:** a layer norm computes `(v - mean) / sqrt(mean((v - mean)^2) + epsilon)`. Which of its steps
# > leaves the range first, when `v` is around 8,000?

# %%
errors = x.errors()
breaks = errors[errors.local_sqnr_db == -float("inf")]
print(f"{len(breaks)} of {len(errors)} layers break by themselves; the first is {x.first_nonfinite()}")
breaks[["id", "op", "local_sqnr_db", "overflow", "elements"]].head(8)

# %%
assert x.first_nonfinite() == "blocks/0/norm1/Pow"
assert len(breaks) == 20
assert dict(breaks.op.value_counts()) == {"Pow": 5, "ReduceMean": 5, "Add": 5, "Sqrt": 5}

# %% [markdown]
# The square does: anything above 256 squared is above 65,504. Here is where every layer's exact values lie. This is known
# before any conversion, and it depends on your inputs, so use real ones.

# %%
ranges = x.ranges()
limit = 65504
beyond = ranges.max_abs > limit
picture = go.Figure()
for name, rows, colour, symbol in (
    ("fits in fp16", ranges[~beyond], "#0072B2", "circle"),
    ("beyond fp16", ranges[beyond], "#D55E00", "x"),
):
    picture.add_scatter(
        x=rows.index,
        y=rows.max_abs,
        name=name,
        mode="markers",
        text=rows.id,
        marker={"color": colour, "symbol": symbol, "size": 8},
        hovertemplate="%{text}<br>largest value %{y:.4g}<extra></extra>",
    )
picture.add_scatter(
    x=[0, len(ranges) - 1],
    y=[limit, limit],
    name="largest fp16 number",
    mode="lines",
    line={"color": "gray", "dash": "dash"},
    hovertemplate="65,504<extra></extra>",
)
picture.update_layout(
    title="Largest exact value of each layer (measured in fp32)",
    template="simple_white",
    height=380,
    xaxis_title="layer, in execution order",
    yaxis={"title": "largest |value|", "type": "log"},
)
picture

# %%
assert beyond.sum() == 15

# %% [markdown]
# Fifteen layers are beyond the line, yet twenty break. Keep that in mind.
#
# ## 3. A first guess that is not enough
#
# The picture names `Pow` and `ReduceMean`, so let us block these two operators.
#
# > **Your prediction:** does the accuracy come back fully, partly, or not at all?

# %%
guess = x.plan.block(op_types=["Pow", "ReduceMean"])
x.plan = guess
half_way = x.accuracy()
in_fp32 = [decision.layer_id for decision in x.decisions() if decision.format == "fp32"]
print(f"{len(in_fp32)} layers in fp32, accuracy {half_way.plan:.2%}")

assert half_way.plan < 0.15

# %% [markdown]
# Not at all! Sixteen layers are protected and nothing is gained. Look at what still breaks:

# %%
errors = x.errors()
still = errors[(errors.format == "fp16") & (errors.local_sqnr_db == -float("inf"))]
still[["id", "op", "local_sqnr_db", "overflow", "elements", "reason"]].head(4)

# %%
assert set(still.op) == {"Add", "Sqrt"}
assert (still[still.op == "Sqrt"].overflow == 0).all()

# %% [markdown]
# The mean of the squares is half a million. `ReduceMean` now returns it in fp32, and hands it to `Add` (which adds
# epsilon), and that layer rounds the same huge number to fp16: infinity again. `Sqrt` is the subtle one: its *result*, about
# 700, fits well (`overflow` is 0), but a layer in fp16 also *reads* its input in fp16. These are the five that the picture did
# not show.
#
# Overflow does not stop at the operator that caused it. It travels until some layer makes the number small again, and
# everything up to and with that layer has to stay in fp32.
#
# ## 4. The right blacklist
#
# > **Your prediction:** which layers of each norm are needed, from where to where? Can the first `ReduceMean` (of the values
# > themselves) and `Div` run in fp16?

# %%
x.plan = explorer.Plan().block(layers=["*norm*/Pow", "*norm*/ReduceMean_1", "*norm*/Add", "*norm*/Sqrt"])
right = x.accuracy()
in_fp32 = [decision.layer_id for decision in x.decisions() if decision.format == "fp32"]
print(f"{len(in_fp32)} layers in fp32, accuracy {right.plan:.2%}, same prediction on {right.agreement:.0%} of images")

assert len(in_fp32) == 20
assert right.plan == right.exact
assert right.agreement == 1.0
assert x.first_nonfinite() is None

# %% [markdown]
# From the square to the root, four layers in each of five norms. All others run in fp16, and every single prediction is what
# it was. Blocking the four *operators* would do it too, at fifty layers instead of twenty: names are cheaper than types.
#
# Here is the error along the network under the three plans. On the first two, each norm returns its bias, whatever the image.

# %%
plans = {"all in fp16": explorer.Plan(), "Pow and ReduceMean in fp32": guess, "the right twenty in fp32": x.plan}
picture = go.Figure()
for (name, plan), colour, dash in zip(plans.items(), ("#D55E00", "#E69F00", "#0072B2"), ("dot", "dash", "solid")):
    x.plan = plan
    errors = x.errors()
    picture.add_scatter(
        x=errors.index,
        y=errors.acc_sqnr_db.clip(lower=-5, upper=100),
        name=name,
        text=errors.id,
        line={"color": colour, "dash": dash},
        hovertemplate="%{text}<br>%{y:.1f} dB<extra></extra>",
    )
picture.update_layout(
    title="Error of each layer under the plan (emulated; above 100 dB and below -5 dB cut)",
    template="simple_white",
    height=380,
    xaxis_title="layer, in execution order",
    yaxis_title="SQNR in dB (more is better)",
    legend={"orientation": "h", "y": 1.08},
)
picture

# %% [markdown]
# ## 5. Take it with you
#
# `export` writes the mixed-precision model; it has been checked and loaded before the file appears. `report` writes one HTML
# page for those who were not here. With `gpu_model` it also predicts the latency on a GPU that you need not have.

# %%
conversion = x.export(out / "digits_transformer.fp16.onnx")
print(f"{len(conversion.casts)} casts inserted")
report = x.report(out / "report.html", gpu_model="H100")

session = onnxruntime.InferenceSession(out / "digits_transformer.fp16.onnx", providers=["CPUExecutionProvider"])
assert [each.name for each in session.get_outputs()] == ["class_scores"]
assert report.stat().st_size > 100_000
report

# %% [markdown]
# The same from a terminal, which also writes the plan and a table of all layers:
#
# ```
# precision-explorer explore sample_models/digits_transformer.onnx --inputs sample_models/digits_transformer.npz \
#     --block '*norm*/Pow' --block '*norm*/ReduceMean_1' --block '*norm*/Add' --block '*norm*/Sqrt'
# ```
#
# ## 6. Your turn
#
# `digits_transformer_mask` is the same network with an epsilon of 1e-12 and a mask of -3.4e38. It fails in another way: its output
# is NaN. Seven layers in fp32 save it. Start from what `errors()` shows, fill the list, and run `check` until it is content.
# (The answer is in `sample_models/README.md`.)

# %%
y = explorer.open(samples / "digits_transformer_mask.onnx", inputs=samples / "digits_transformer_mask.npz")
errors = y.errors()
errors[(errors.overflow > 0) | (errors.nan > 0) | (errors.flushed > 0)][
    ["id", "op", "overflow", "nan", "flushed", "elements"]
]


# %%
def check(layers):
    """Tell how far a blacklist for digits_transformer_mask gets."""
    y.plan = explorer.Plan().block(layers=layers)
    got = y.accuracy()
    kept = sum(decision.format == "fp32" for decision in y.decisions())
    if got.agreement < 1:
        print(f"Not yet: {got.plan:.1%} instead of {got.exact:.1%}; {y.first_nonfinite()} is the first to break.")
    elif kept > 7:
        print(f"It works, with {kept} layers in fp32. Seven are enough.")
    else:
        print("All predictions are back, with as few layers as can be.")


check(["bias/Where"])
