import yaml

from moebius.inference.model_card import model_card
from moebius.inference.pipeline import InpaintPipeline
from moebius.models.schedule import build_scheduler

from .conftest import load, tiny_denoiser, tiny_vae


def card_of(**facts) -> tuple[dict, str]:
    pipe = InpaintPipeline(tiny_denoiser(), tiny_vae(), build_scheduler(), **facts)
    _, header, text = model_card(pipe.denoiser, pipe.vae, pipe.config).split("---\n", 2)
    return yaml.safe_load(header), text


def test_what_is_not_known_is_called_unknown():
    header, text = card_of()
    assert header["license"] == "unknown" and header["library_name"] == "diffusers"
    assert "| licence of the weights | unknown |" in text
    assert "| provenance of the weights | unknown |" in text


def test_licence_and_provenance_are_named():
    header, text = card_of(licence="apache-2.0", provenance="made up")
    assert header["license"] == "apache-2.0" and "license_name" not in header
    assert "| licence of the weights | apache-2.0 |" in text
    assert "| provenance of the weights | made up |" in text and "lmi_dw_mixffn" in text
    header, _ = card_of(licence="The authors' terms")
    assert header["license"] == "other" and header["license_name"] == "The authors' terms"


def test_every_saved_pipeline_has_its_card_also_after_a_round_trip(tmp_path):
    facts = {"licence": "mit", "provenance": "a test"}
    pipe = InpaintPipeline(tiny_denoiser(), tiny_vae(), build_scheduler(), **facts)
    pipe.save_pretrained(tmp_path / "a")
    load(tmp_path / "a").save_pretrained(tmp_path / "b")
    card = (tmp_path / "a" / "README.md").read_text()
    assert "a test" in card and card == (tmp_path / "b" / "README.md").read_text()
