"""Where ``profiles/`` and ``terminology/`` lie on this machine."""

from pathlib import Path


def artifacts_root(configured: Path | None = None) -> Path:
    """Return the folder that holds ``profiles/`` and ``terminology/``.

    The first of: ``configured`` (the setting ``FHIR_ARTIFACTS``), the copy inside an installed
    wheel, the checkout. Raises :class:`FileNotFoundError` that names the folders it looked in.
    """
    here = Path(__file__).resolve().parent
    candidates = [configured] if configured else [here / "_artifacts", here.parent]
    for folder in candidates:
        if (folder / "profiles").is_dir():
            return folder
    looked_in = ", ".join(str(folder) for folder in candidates)
    raise FileNotFoundError(f"There is no folder profiles/ in {looked_in}.")
