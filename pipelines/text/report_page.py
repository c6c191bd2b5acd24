"""The page of a report on runs, made of the numbers in its ``report.json`` alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ..look import INK, LINES, document, inline_svg
from ..plots import dress

_SPARE = ("#3f8fd2", "#d9822b", "#2fa36b", "#b05cc6", "#c0504d", "#7f8c3a")
_SHOWN = {"accuracy": "accuracy", "nll": "negative log-likelihood", "ece": "calibration error"}


def report_html(numbers: Mapping[str, Any]) -> str:
    """The whole page as HTML.

    Args:
        numbers: what ``report_numbers`` gives.
    """
    about = numbers["about"]
    line = (
        f"mixops {about['mixops']}, Python {about['python']}, NumPy {about['numpy']}, torch {about['torch']}; "
        f"{about['cpus']} CPUs, {about['machine']}"
    )
    title = "Sentences, mixed"
    parts = [
        f'<p class="soft">{escape(line)}</p>',
        *_what(numbers),
        *_result(numbers),
        *_epochs(numbers),
        *_words(numbers["runs"][0]),
        *_pairs(numbers),
    ]
    return document(title, parts)


def _what(numbers: Mapping[str, Any]) -> Iterable[str]:
    run = numbers["runs"][0]
    config = run["config"]
    setting = f", word vectors {config['setting']} of {config['dim']} numbers" if "setting" in config else ""
    rate = f"learning rate {config['lr']:g}" + (", with a linear warm-up and fall" if config["warmup"] else "")
    seconds = float(np.mean([one["seconds"] for one in numbers["runs"]]))
    yield (
        f"<p><b>{escape(config['model'])}</b>{escape(setting)}; {config['parameters']:,} parameters. "
        f"{config['train']:,} sentences of {len(config['classes'])} classes to learn from, {config['test']:,} to test; "
        f"{config['epochs']} epochs in batches of {config['batch_size']}, AdamW, {rate}. "
        f"An epoch took {seconds:.2f} s on {config['threads']} thread{'s' if config['threads'] > 1 else ''}.</p>"
    )
    if config["stage"] is not None:
        yield f"<p>Each time a sentence is seen it first goes through <code>{escape(config['stage'])}</code>.</p>"


def _result(numbers: Mapping[str, Any]) -> Iterable[str]:
    """The last epoch."""
    first = numbers["methods"][0]
    yield "<h2>On the test sentences, after the last epoch</h2>"
    compared = any("paired" in of["accuracy"] for of in numbers["summary"].values())
    head = ["method", "seeds", *(text for text in _SHOWN.values())]
    yield "<div class='card'><table><tr>" + "".join(f"<th>{escape(text)}</th>" for text in head) + "</tr>"
    for method, of in numbers["summary"].items():
        cells = "".join(f"<td>{_mean(name, of[name])}</td>" for name in _SHOWN)
        yield f"<tr><td><code>{escape(method)}</code></td><td>{len(of['seeds'])}</td>{cells}</tr>"
    yield "</table></div><p class='soft'>Mean over seeds ± standard deviation, where there are several.</p>"
    if not compared:
        return
    yield f"<h3>less {escape(first)}, on the same seeds</h3>"
    yield "<div class='card'><table><tr><th>method</th><th></th><th>difference</th><th>95 % interval</th>"
    yield "<th>better on</th></tr>"
    for method, of in numbers["summary"].items():
        for name, text in _SHOWN.items():
            paired = of[name].get("paired")
            if paired is not None:
                yield (
                    f"<tr><td><code>{escape(method)}</code></td><td>{escape(text)}</td>"
                    f"<td>{_signed(name, paired['mean'])}</td>"
                    f"<td>{_signed(name, paired['low'])} to {_signed(name, paired['high'])}</td>"
                    f"<td>{paired['better']} of {paired['seeds']}</td></tr>"
                )
    yield "</table></div><p class='soft'>The interval is that of the t-test on paired differences, with no correction "
    yield "for making several. One that holds zero shows no difference. Of accuracy more is better, of the other two "
    yield "less.</p>"


def _mean(name: str, one: Mapping[str, Any]) -> str:
    return _plain(name, one["mean"]) + (f" ± {_plain(name, one['sd'], unit='')}" if one["sd"] is not None else "")


def _plain(name: str, value: float, unit: str = " %") -> str:
    return f"{value:.4f}" if name == "nll" else f"{100 * value:.2f}{unit}"


def _signed(name: str, value: float) -> str:
    return f"{value:+.4f}" if name == "nll" else f"{100 * value:+.2f}"


def _epochs(numbers: Mapping[str, Any]) -> Iterable[str]:
    yield "<h2>Epoch by epoch</h2>"
    yield f'<div class="card">{inline_svg(_figure(numbers))}</div>'
    yield "<p class='soft'>Mean over seeds, and each seed as a thin line. The training loss is that of mixed sentences "
    yield "where there are, so it does not compare between operators.</p>"
    head = "".join(f"<th>{escape(text)}</th>" for text in ("training loss", *_SHOWN.values()))
    for method in numbers["methods"]:
        curves = {name: _curves(numbers, method, name).mean(0) for name in ("loss", *_SHOWN)}
        yield f"<h3>{escape(method)}</h3><div class='card'><table><tr><th>epoch</th>{head}</tr>"
        for epoch in range(len(curves["loss"])):
            cells = "".join(f"<td>{_plain(name, curves[name][epoch])}</td>" for name in _SHOWN)
            yield f"<tr><td>{epoch + 1}</td><td>{curves['loss'][epoch]:.4f}</td>{cells}</tr>"
        yield "</table></div>"


def _curves(numbers: Mapping[str, Any], method: str, name: str) -> np.ndarray:
    """(seeds, epochs) of a method."""
    return np.array([run[name] for run in numbers["runs"] if (run["config"]["op"] or "none") == method])


def _figure(numbers: Mapping[str, Any]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 6.4), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    labels = {"accuracy": "test accuracy, %", "nll": "test negative log-likelihood", "ece": "test calibration error, %"}
    spare = iter(_SPARE * len(numbers["methods"]))
    colours = {method: LINES.get(method.partition("(")[0]) or next(spare) for method in numbers["methods"]}
    if len(set(colours.values())) < len(colours):  # two of one operator
        colours = dict(zip(colours, _SPARE * len(colours), strict=False))
    for axis, (name, label) in zip(axes, {**labels, "loss": "training loss"}.items(), strict=True):
        for method, colour in colours.items():
            curves = _curves(numbers, method, name) * (100 if name in ("accuracy", "ece") else 1)
            epochs = np.arange(1, curves.shape[1] + 1)
            marker = "o" if len(epochs) == 1 else None
            if len(curves) > 1:
                axis.plot(epochs, curves.T, color=colour, linewidth=0.6, alpha=0.4)
            axis.plot(epochs, curves.mean(0), color=colour, linewidth=1.8, marker=marker, label=method)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylabel(label)
        dress(axis, INK)
    axes[0].legend(frameon=False, fontsize=8, labelcolor=INK)
    return figure


def _words(run: Mapping[str, Any]) -> Iterable[str]:
    if run["test_coverage"] is None:
        return
    yield "<h2>Words</h2>"
    yield f"<p>{run['config']['vocabulary']:,} ids, padding and unknown words among them.</p>"
    yield "<div class='card'><table><tr><th></th><th>words</th><th>known</th><th>unknown</th><th>tokens</th>"
    yield "<th>known</th><th>unknown</th></tr>"
    texts = {
        "coverage": "training sentences: words with a pretrained vector",
        "test_coverage": "test sentences: words that the network knows",
    }
    for name, text in texts.items():
        found = run[name]
        if found is not None:
            counts = [(found[kind], found[f"known_{kind}"]) for kind in ("types", "tokens")]
            cells = [value for every, known in counts for value in (every, known, every - known)]
            yield f"<tr><td>{text}</td>" + "".join(f"<td>{value:,}</td>" for value in cells) + "</tr>"
    yield "</table></div>"


def _pairs(numbers: Mapping[str, Any]) -> Iterable[str]:
    runs: dict[str, Mapping[str, Any]] = {}
    for run in numbers["runs"]:
        runs.setdefault(run["config"]["op"] or "none", run)
    for method, run in runs.items():
        mixing = run["mixing"]
        if not mixing["pairs"]:
            continue
        where = ", ".join(f"{layer} ({count} batches)" for layer, count in sorted(mixing["layers"].items()))
        yield f"<h2>What {escape(method)} mixed</h2>"
        yield (
            f"<p>Seed {run['config']['seed']}: {mixing['mixed']:,} of {mixing['rows']:,} sentences took a share of "
            f"another into their target; their own share was {mixing['lam']:.3f} on average. Mixed at "
            f"{escape(where)}. Each box is a row of a batch and its partner, with the share of either.</p>"
        )
        yield '<div class="pairs">'
        yield from (_pair(pair) for pair in mixing["pairs"])
        yield "</div>"


def _pair(pair: Mapping[str, Any]) -> str:
    shares: Sequence[tuple[float, str, str, str]] = (
        (pair["lam"], pair["own"], pair["labels"][0], "#3f8fd2"),
        (1 - pair["lam"], pair["other"], pair["labels"][1], "#d9822b"),
    )
    bar = "".join(f'<i style="width:{100 * share:.1f}%;background:{colour}"></i>' for share, _, _, colour in shares)
    lines = "".join(
        f'<li style="border-color:{colour}"><b>{share:.2f}</b> {escape(text)} <span class="soft">({escape(label)})'
        "</span></li>"
        for share, text, label, colour in shares
    )
    return f'<figure class="card"><div class="bar">{bar}</div><ul class="whole">{lines}</ul></figure>'
