"""What keeps a repository of the hub from being loaded is told apart, after one question."""

import huggingface_hub
import pytest
from huggingface_hub import errors

from hi3d.diffusion.folders import hub
from hi3d.diffusion.weights import load_network
from hi3d.errors import InputError


def client_error(kind):
    """An error of the hub, as its client makes it."""
    error = kind.__new__(kind)
    Exception.__init__(error, "of the hub")
    return error


CASES = [
    (client_error(errors.GatedRepoError), "accept it at https://huggingface.co/some/model"),
    (client_error(errors.RepositoryNotFoundError), "no such repository"),
    (client_error(errors.OfflineModeIsEnabled), "cannot reach the hub"),
    (client_error(errors.HfHubHTTPError.__bases__[0]), "cannot reach the hub"),
    (ConnectionError("refused"), "cannot reach the hub"),
    (TimeoutError("too long"), "cannot reach the hub"),
]


@pytest.fixture
def asked(monkeypatch):
    """Takes the error that the hub answers with; returns the list of questions put to it."""
    questions = []

    def answer_with(error):
        def answer(url, **options):
            questions.append((url, options))
            raise error

        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", answer)
        return questions

    hub.check_hub.cache_clear()
    monkeypatch.setattr(hub, "is_downloaded", lambda repository: False)
    yield answer_with
    hub.check_hub.cache_clear()


@pytest.mark.parametrize(("error", "words"), CASES, ids=[type(e).__name__ for e, _ in CASES])
def test_each_cause_is_one_line(asked, error, words):
    questions = asked(error)
    with pytest.raises(InputError, match=words) as caught:
        load_network("some/model", "unet")
    assert "\n" not in str(caught.value)
    assert "damaged" not in str(caught.value)
    ((url, options),) = questions
    assert "some/model" in url
    assert options == {"timeout": hub.TIMEOUT_SECONDS}


def test_what_was_downloaded_needs_no_network(asked, monkeypatch):
    asked(ConnectionError("refused"))
    monkeypatch.setattr(hub, "is_downloaded", lambda repository: True)
    hub.check_hub("some/model")


def test_a_repository_of_one_network_has_no_index(asked):
    asked(client_error(errors.RemoteEntryNotFoundError))
    hub.check_hub("some/model")


def test_an_impossible_name_is_told():
    with pytest.raises(InputError, match="no such repository"):
        hub.check_hub("some/mo del")


def test_a_damaged_folder_is_no_question_to_the_hub(asked, tmp_path):
    questions = asked(ConnectionError("refused"))
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(InputError, match=r"no readable model_index\.json"):
        load_network(str(tmp_path), "unet")
    assert questions == []
