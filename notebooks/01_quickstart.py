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
# **You will** open a small trained transformer, see on its graph how half precision destroys it, find the layers to
# blame, keep just these in fp32 with a few clicks, and export a model that predicts exactly as before.
#
# **You will learn** to read the panel, to tell a layer that *breaks* from a layer that only *passes on* what it was
# given, and why the obvious blacklist is not enough.
#
# **You need** this repository with its environment (`make lab` opens this page in it), ten minutes, and no GPU.
#
# Each step asks a question. Say what you expect before you go on: being wrong is how this sticks. Then try it in the
# panel, under **Click**, and run the cell below, which does the same in Python and checks what the text claims. (If you
# clicked already, the cell changes nothing. If you ran all cells at once, the panel shows the end of the story:
# its button ↶ takes you back step by step.)

# %%
from pathlib import Path

import onnxruntime
import plotly.graph_objects as go

import explorer
from explorer.export.blacklists import blacklist_text

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

# %% [markdown]
# That is the **panel**. On top the *bar*: what the plan is, and what it costs. On the left the *graph* of the model,
# which starts at its input. On the right the *inspector*. The figures follow a second or two after the graph.
#
# The next steps use the panel while you read on. Right-click its name, top left, and choose *Create New View for Cell
# Output*: the panel is shown a second time below this page, in a tab that you can drag to its side. Both follow each other.
#
# Look at the bar: **Output error** and **Accuracy**. In Python:

# %%
full_fp16 = explorer.Plan()
x.plan = full_fp16
full = x.accuracy()
print(f"fp32 {full.exact:.2%}   fp16 {full.plan:.2%}   ({full.provenance})")

assert full.exact > 0.98
assert full.plan < 0.15

# %% [markdown]
# Ten classes, one in ten right: it guesses. And nothing looks broken from outside. There is no NaN in the output, no
# warning from any runtime, and a file that is a third smaller. What the outputs have lost:

# %%
x.output_error()

# %% [markdown]
# "Emulated" tells how a number came to be: every tensor is rounded to fp16 as a GPU would store it. Running an fp16
# model on ONNX Runtime's CPU provider would *not* show this, for it computes in fp32 and skips most of the rounding.
#
# ## 2. Which layers break?
#
# > **Your prediction:** a layer norm computes `(v - mean) / sqrt(mean((v - mean)^2) + epsilon)`. Which of its steps
# > leaves the range of fp16 first, when `v` is around 8,000?
#
# **Click** into the graph and turn the mouse wheel to go down, or drag in the small map in its corner. Pale green boxes lose what
# rounding to fp16 costs, about 70 dB; an orange box with an octagon **!** has infinities or NaN. The first group of
# them stands in the scope `norm1` of `blocks.0`. Click its topmost orange box, `Pow`: the inspector tells what the layer
# loses by itself on exact inputs (*local*), and what is left of it under the whole plan (*accumulated*).
#
# The same as a table is in the inspector's tab **Table**; its button *broken* lists just these layers. In Python `-inf` means
# that the layer returned infinities:

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
# The square does: anything above 255 squared is above 65,504.
#
# ## 3. How far beyond the range?
#
# > **Your prediction:** of the values of this `Pow`, how many does fp16 turn into infinity: a few outliers, half, or most?
#
# **Click** `Pow` again if it is not selected, and scroll the inspector's tab **Layer** to *Values of the output*: a histogram
# of the values on a log2 axis, with the bands where fp16 overflows, is normal, is subnormal and flushes to zero. Below
# it, each point is one value in fp32 (across) and under the plan (up).

# %%
values = x.values("blocks/0/norm1/Pow")
print(f"{values.plan.nonfinite:,} of {values.scatter.total:,} values are infinite under the plan")

assert values.exact.nonfinite == 0
assert 0.6 < values.plan.nonfinite / values.scatter.total < 0.62

# %% [markdown]
# Six of ten. This is what the inputs do to the model, so use real ones: with random inputs the panel says that ranges
# and errors are not to be trusted.
#
# ## 4. A first guess that is not enough
#
# The first layers to break are a `Pow` and the `ReduceMean` behind it, so let us keep these two operators in fp32.
#
# > **Your prediction:** does the accuracy come back fully, partly, or not at all?
#
# **Click** the field *Op types in fp32* in the bar, then `ReduceMean` and `Pow` in the list (type to filter it), then Escape.
# The layers turn fp32 at once and get a padlock; the errors are grey until the run of the new plan is done. Beside the bar's
# figures stands the Python call that the panel made.

# %%
guess = full_fp16.block(op_types=["ReduceMean", "Pow"])
x.plan = guess
half_way = x.accuracy()
in_fp32 = [decision.layer_id for decision in x.decisions() if decision.format == "fp32"]
print(f"{len(in_fp32)} layers in fp32, accuracy {half_way.plan:.2%}")

assert half_way.plan < 0.15

# %% [markdown]
# Not at all! Sixteen layers are protected and nothing is gained. Orange boxes are left in each norm:

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
# 700, fits well (`overflow` is 0), but a layer in fp16 also *reads* its input in fp16.
#
# Overflow does not stop at the operator that caused it. It travels until some layer makes the number small again, and
# everything up to and with that layer has to stay in fp32.
#
# **Click** ↶ in the bar twice (or press ctrl+z on the graph) to be back where we were: a plan that was run before needs
# no new run.

# %%
x.plan = full_fp16
assert x.accuracy() == full

# %% [markdown]
# ## 5. The right blacklist
#
# > **Your prediction:** which layers of each norm are needed, from where to where? Can the first `ReduceMean` (of the values
# > themselves) and `Div` run in fp16?
#
# **Click** the tab **Findings**. The first one says where the model breaks, how it spreads, and which layers stop it; the
# second why. *Show the 20 layers* selects them on the graph. Then click *Keep 20 layers in fp32: all that break*. (By hand it
# is as quick: in the tab **Table** click *broken*, then *Select these*, then *Block*.)

# %%
broken = x.fork()  # has a plan of its own: the panel stays as it is
broken.plan = full_fp16
first = broken.findings()[0]
print(f"{first.title}. {first.text}\n")
print(first.fix.code)

x.plan = first.fix.apply(full_fp16)

assert x.plan == explorer.Plan().block(layers=["*norm*/Pow", "*norm*/ReduceMean_1", "*norm*/Add", "*norm*/Sqrt"])

# %%
right = x.accuracy()
in_fp32 = [decision.layer_id for decision in x.decisions() if decision.format == "fp32"]
print(f"{len(in_fp32)} layers in fp32, accuracy {right.plan:.2%}, same prediction on {right.agreement:.0%} of images")

assert len(in_fp32) == 20
assert right.plan == right.exact
assert right.agreement == 1.0
assert x.first_nonfinite() is None

# %% [markdown]
# From the square to the root, four layers in each of five norms. All others run in fp16, and every single prediction is what
# it was: the bar says 98.9 % → 98.9 %. Blocking the four *operators* would do it too, at fifty layers instead of twenty: names are
# cheaper than types.
#
# The tab **Trade-off** has every plan that was run, as a point and in a list; *Go back* returns to one. In Python:

# %%
for tried in x.tried:
    print(f"{tried.label:20} output error {round(tried.sqnr_db, 1) + 0:5.1f} dB   accuracy {tried.accuracy:.1%}")

# %% [markdown]
# Here is the error along the network under the three plans. On the first two, each norm returns its bias, whatever the image.

# %%
plans = {"all in fp16": full_fp16, "Pow and ReduceMean in fp32": guess, "the right twenty in fp32": x.plan}
other = x.fork()
picture = go.Figure()
for (name, plan), colour, dash in zip(plans.items(), ("#D55E00", "#E69F00", "#0072B2"), ("dot", "dash", "solid")):
    other.plan = plan
    errors = other.errors()
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
# ## 6. Take it with you
#
# **Click** the tab **Export**: it writes the mixed-precision model (checked and loaded before the file appears), the plan, the
# table, and a report, one HTML page with this graph for those who were not here. It also gives the blacklist in the syntax of
# other tools, and the Python that brings back the present state.

# %%
conversion = x.export(out / "digits_transformer.fp16.onnx")
print(f"{len(conversion.casts)} casts inserted")
report = x.report(out / "report.html", gpu_model="H100")

session = onnxruntime.InferenceSession(out / "digits_transformer.fp16.onnx", providers=["CPUExecutionProvider"])
assert [each.name for each in session.get_outputs()] == ["class_scores"]
assert report.stat().st_size > 100_000
report.relative_to(repository)

# %%
text, note = blacklist_text("onnxconverter-common", x.model, x.decisions())
print(text)
print(note)

assert "'norm/Sqrt'" in text

# %% [markdown]
# The model, a report, the plan and a table of all layers, from a terminal:
#
# ```
# precision-explorer explore sample_models/digits_transformer.onnx --inputs sample_models/digits_transformer.npz \
#     --block '*norm*/Pow' --block '*norm*/ReduceMean_1' --block '*norm*/Add' --block '*norm*/Sqrt'
# ```
#
# ## 7. Your turn
#
# `digits_transformer_mask` is the same network with an epsilon of 1e-12 and a mask of -3.4e38. It fails in another way: its output
# is NaN. Seven layers in fp32 save it. Start from what this table shows, or its panel (`y` in a cell of its own); fill the
# list, and run `check` until it is content. Are the seven those that the first finding proposes? (The answer is in `sample_models/README.md`.)

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
