import io
import sys

from ffnlab.finetune import predict_files


def test_standard_output_is_utf_8_in_any_locale(monkeypatch):
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, "latin-1", errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", stream)
    print("é Δ")
    with predict_files._open("-") as file:
        file.write("é Δ\n")
    print("é Δ", flush=True)
    around = b"\xe9 \\u0394\n"
    assert written.getvalue() == around + "é Δ\n".encode() + around
