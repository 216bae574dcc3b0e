"""Whether a repository of the Hugging Face hub can be had, asked once before anything is loaded."""

from functools import lru_cache

import huggingface_hub
from huggingface_hub import errors

from hi3d.errors import InputError

TIMEOUT_SECONDS = 10.0
INDEX = "model_index.json"
NO_NETWORK: tuple[type[Exception], ...] = (ConnectionError, *errors.HfHubHTTPError.__bases__)
"""The last are the base errors of the hub's HTTP client, whichever it is."""


@lru_cache
def check_hub(repository: str) -> None:
    """Ask the hub for one small file's header, without another try.

    What was downloaded before is used without a network.

    Args:
        repository: `organisation/name`.

    Raises:
        InputError: there is no such repository, its license is not accepted, or no network.
    """
    try:
        huggingface_hub.utils.validate_repo_id(repository)
        url = huggingface_hub.hf_hub_url(repository, INDEX)
        huggingface_hub.get_hf_file_metadata(url, timeout=TIMEOUT_SECONDS)
    except errors.EntryNotFoundError:
        return  # a single network, or what the reader of its parts tells
    except errors.GatedRepoError as error:
        raise InputError(
            f"{repository} is behind a license: accept it at https://huggingface.co/{repository} "
            "and log in with `hf auth login`"
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise InputError(
            f"no model folder at {repository}, and no such repository on the hub (or a private "
            "one): check the name, or log in with `hf auth login`"
        ) from error
    except NO_NETWORK as error:
        if not is_downloaded(repository):
            raise InputError(
                f"cannot reach the hub for {repository} ({type(error).__name__}): go online once, "
                "or give a local folder"
            ) from error


def is_downloaded(repository: str) -> bool:
    """Whether an earlier download of a repository lies in the hub's cache."""
    names = (INDEX, "config.json")
    return any(
        isinstance(huggingface_hub.try_to_load_from_cache(repository, name), str) for name in names
    )
