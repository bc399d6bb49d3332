"""What a view shows of a model, as plain data in the form of js/src/protocol.ts; nothing here draws."""

from explorer.scene.casts import cast_count, edge_casts, pair_count
from explorer.scene.details import layer_details
from explorer.scene.figures import NEVER, figures
from explorer.scene.frame import decode_frame, encode_frame
from explorer.scene.fronts import FrontColumns, ShownFront, known_accuracy, low_mask, search_json
from explorer.scene.numbers import Num, num
from explorer.scene.page import read_only_scene
from explorer.scene.state import findings_json, ops_json, outputs_json, plan_json
from explorer.scene.structure import encode, structure

__all__ = [
    "NEVER",
    "FrontColumns",
    "Num",
    "ShownFront",
    "cast_count",
    "decode_frame",
    "edge_casts",
    "encode",
    "encode_frame",
    "figures",
    "findings_json",
    "known_accuracy",
    "layer_details",
    "low_mask",
    "num",
    "ops_json",
    "outputs_json",
    "pair_count",
    "plan_json",
    "read_only_scene",
    "search_json",
    "structure",
]
