"""Networks of installed packages: `timm:NAME`, `torchvision:NAME`, `pytorchcv:NAME`, with random weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from codesign.errors import CodesignError, did_you_mean
from codesign.importers.pytorch import require_torch
from codesign.networks.architecture import IMAGENET, Architecture

Image = tuple[int, int, int]


def adapted(name: str) -> Architecture:
    """The network `PACKAGE:NAME`. Raises CodesignError: another package, one that is not installed, an unknown name."""
    require_torch(name)
    package, _, inner = name.partition(":")
    if package not in _ADAPTERS:
        raise CodesignError(name, f"there is no adapter for {package}", f"one of {', '.join(_ADAPTERS)}")
    return _ADAPTERS[package](inner)


def _timm(name: str) -> Architecture:
    timm = _imported("timm")
    known = timm.list_models()
    if name not in known and not timm.is_model(name):
        raise _unknown("timm", name, known)
    image = tuple(timm.get_pretrained_cfg(name).input_size)
    return Architecture(f"timm:{name}", "timm", image, partial(_build_timm, timm, name), _version(timm))


def _build_timm(timm: Any, name: str, classes: int | None = None, channels: int | None = None) -> Any:
    return timm.create_model(name, pretrained=False, **_given(num_classes=classes, in_chans=channels))


def _torchvision(name: str) -> Architecture:
    models = _imported("torchvision").models
    known = models.list_models()
    if name not in known:
        raise _unknown("torchvision", name, known)
    weights = models.get_model_weights(name)
    crop = getattr(next(iter(weights)).transforms(), "crop_size", None) if len(weights) else None
    image = (IMAGENET[0], crop[0], crop[-1]) if crop else IMAGENET
    source = _version(_imported("torchvision"))
    return Architecture(f"torchvision:{name}", "torchvision", image, partial(_build_torchvision, models, name), source)


def _build_torchvision(models: Any, name: str, classes: int | None = None) -> Any:
    loaded = {"weights_backbone": None} if name in models.list_models(models.detection) else {}
    return models.get_model(name, weights=None, **loaded, **_given(num_classes=classes))


def _pytorchcv(name: str) -> Architecture:
    provider = _imported("pytorchcv.model_provider")
    known = provider._models  # the package offers no other list
    if name not in known:
        raise _unknown("pytorchcv", name, known)
    build = partial(_build_pytorchcv, provider, name)
    rows, columns = getattr(build(), "in_size", IMAGENET[1:])
    source = _version(_imported("pytorchcv"))
    return Architecture(f"pytorchcv:{name}", "pytorchcv", (IMAGENET[0], rows, columns), build, source)


def _build_pytorchcv(provider: Any, name: str, classes: int | None = None, channels: int | None = None) -> Any:
    return provider.get_model(name, pretrained=False, **_given(num_classes=classes, in_channels=channels))


_ADAPTERS: dict[str, Callable[[str], Architecture]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "pytorchcv": _pytorchcv,
}


def _imported(module: str) -> Any:
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = error.name or package
        problem = "is not installed" if missing == package else f"cannot be imported: {error}"
        raise CodesignError(package, problem, f"pip install {missing.partition('.')[0]}") from error


def _given(**options: int | None) -> dict[str, int]:
    """The options that have a value."""
    return {key: value for key, value in options.items() if value is not None}


def _unknown(package: str, name: str, known: Collection[str]) -> CodesignError:
    return CodesignError(
        f"{package}:{name}", "no such network", did_you_mean(name, known) or f"see the list of {package}"
    )


def _version(package: Any) -> str:
    return f"{package.__name__} {getattr(package, '__version__', '')}".rstrip()
