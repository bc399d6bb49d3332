"""What CUPTI hands over becomes plain records on the profile's clock; where it cannot record, the reason is told."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest

from explorer.backends import cupti as cupti_module
from explorer.backends.cupti import CuptiUnavailable, Launch, Recorder, Work, demangled, find_cupti, records_of


# CUPTI's own objects, as cupti-python 13.4 names their fields.
def api(correlation, start, end, kind=5):
    return SimpleNamespace(kind=kind, correlation_id=correlation, start=start, end=end, thread_id=7, cbid=1)


def done(correlation, start, end, kind=10, **more):
    return SimpleNamespace(kind=kind, correlation_id=correlation, start=start, end=end, **({"name": "k"} | more))


def test_cuptis_records_become_plain_ones_on_the_wanted_clock():
    found = records_of(
        [
            api(1, 1100, 1200),
            api(2, 1300, 1400, kind=4),
            done(1, 1500, 1600),
            done(2, 1600, 1700, kind=1, copy_kind=2),
            done(3, 1700, 1800, kind=2),
            done(4, 0, 0),  # times that could not be collected
            SimpleNamespace(kind=12, timestamp=5),  # a marker
        ],
        offset_ns=1000,
    )
    assert found.launches == (Launch(1, 100, 200, 7), Launch(2, 300, 400, 7))
    assert found.work == (
        Work(1, "k", "kernel", 500, 600),
        Work(2, "copy, device to host", "copy", 600, 700),
        Work(3, "fill", "fill", 700, 800),
    )


@pytest.mark.parametrize(
    ("symbol", "source"),
    [
        ("_ZN11onnxruntime4cuda13FillKernelABCIfEEvPT_i", "void onnxruntime::cuda::FillKernelABC<float>(float*, int)"),
        ("_Z3addIfEvPT_S1_", "void add<float>(float*, float*)"),
        ("ampere_sgemm_128x64_nn", "ampere_sgemm_128x64_nn"),
        ("_Znonsense", "_Znonsense"),
    ],
)
def test_kernels_are_named_as_in_the_source(symbol, source):
    if symbol.startswith("_Z") and sys.platform != "linux":
        pytest.skip("there is no libstdc++ to ask")
    assert demangled(symbol) == source
    assert records_of([done(1, 5, 6, name=symbol)]).work[0].name == source


class FakeCupti:
    """The part of ``cupti.cupti`` that is used, in the order in which it must be."""

    class cuptiError(Exception):  # noqa: N801 - its name there
        def __init__(self, status):
            super().__init__(status)
            self.status = status

    def __init__(self, *, offset=0, fails=None):
        self.offset, self.fails, self.calls, self.enabled = offset, fails, [], set()

    def Result(self, status):  # noqa: N802 - its name there
        return SimpleNamespace(name={39: "ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED"}[status])

    def get_timestamp(self):
        return time.time_ns() + self.offset

    def set_thread_id_type(self, kind):
        assert kind == 1

    def activity_register_callbacks(self, requested, completed):
        assert requested()[0] >= 1 << 20
        self.completed = completed

    def activity_enable(self, kind):
        if kind == self.fails:
            raise self.cuptiError(39)
        self.enabled.add(kind)

    def activity_disable(self, kind):
        self.enabled.remove(kind)

    def activity_flush_all(self, flag):
        assert flag == 1
        now = self.get_timestamp()
        self.completed([api(1, now - 500, now - 400), done(1, now - 300, now - 100)])


def test_a_recorder_hands_out_what_cupti_saw_and_switches_it_off():
    cupti = FakeCupti(offset=10**12)
    with Recorder(cupti) as recorder:
        assert cupti.enabled == {10, 1, 2, 5, 4}
    assert cupti.enabled == set()
    assert recorder.records.work[0].us == pytest.approx(0.2)
    assert abs(recorder.records.launches[0].start_ns - time.time_ns()) < 10**9


def test_a_second_profiler_is_named_as_the_reason():
    cupti = FakeCupti(fails=2)
    with pytest.raises(CuptiUnavailable, match=r"MULTIPLE_SUBSCRIBERS.*Nsight"), Recorder(cupti):
        pytest.fail("it records")
    assert cupti.enabled == set()


def test_records_that_are_not_handed_over_are_told(monkeypatch):
    cupti = FakeCupti()

    def refuse(flag):
        raise cupti.cuptiError(39)

    monkeypatch.setattr(cupti, "activity_flush_all", refuse)
    with pytest.raises(CuptiUnavailable, match=r"did not hand over.*MULTIPLE_SUBSCRIBERS"), Recorder(cupti):
        pass
    assert cupti.enabled == set()
    with pytest.raises(ZeroDivisionError), Recorder(cupti):  # what ended the recording is what must be told
        raise ZeroDivisionError


def test_a_missing_package_is_named_with_its_installation(monkeypatch):
    monkeypatch.setattr(cupti_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(CuptiUnavailable, match="pip install cupti-python"):
        find_cupti()
