import logging

import torch

from moebius.deploy.torch_files import compile_program


def test_a_failed_compilation_is_one_line(tmp_path, monkeypatch, caplog):
    def fail(*_, **__):
        raise RuntimeError("no compiler\nlong story")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    with caplog.at_level(logging.WARNING):
        assert not compile_program(None, tmp_path / "decoder.compiled.pt2")
    (record,) = caplog.records
    assert record.getMessage() == (
        "decoder.compiled.pt2 was not compiled by AOTInductor: no compiler"
    )
