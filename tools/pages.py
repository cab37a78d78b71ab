"""Writes the pages that are made of data: zoo/README.md and recipes/README.md."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment

from keras_robust import recipes, zoo
from keras_robust.packaged import packaged
from keras_robust.recipes import PROFILES

_TEMPLATES = {
    "zoo": """\
# The zoo

Accuracies in percent, measured by `kr.evaluate` in float32. The worst case is the share of one stated set of test
images that survives every attack run on it; the command repeats it. Where a paper gives a figure it stands behind the
slash, under the paper's protocol. This page is made of the cards by `python tools/pages.py`.

| model | dataset | defense | threat | images | {{ attacks | join(" | ") }} | worst case |
| --- | --- | --- | --- | ---: |{% for _ in attacks %} ---: |{% endfor %} ---: |
{% for card in cards -%}
| `{{ card.name }}` | {{ card.dataset }} | {{ card.defense }} | {{ card.threat.norm }} {{ card.threat.eps }} | \
{{ card.evaluation.examples }} | {% for attack in attacks %}{{ cell(card, attack) }} | {% endfor %}\
**{{ "%.1f" | format(card.results.worst_case) }}** |
{% endfor %}
{% for card in cards %}
## {{ card.name }}

{{ card.description }} Trained with the recipe `{{ card.training.recipe }}` ({{ card.training.profile }} profile, \
{{ card.training.epochs }} epochs\
{% if card.training.seconds %}, {{ (card.training.seconds / 60) | round(1) }} minutes{% endif %}).

```bash
{{ card.evaluation.command }}
```
{% for row in card.further %}
On {{ row.examples }} images: \
{% for attack, value in row.results.items() if attack != "worst_case" %}{{ attack }} {{ "%.2f" | format(value) }}\
{{ ", " if not loop.last }}{% endfor %} (`{{ row.command }}`).
{% endfor %}
{%- if card.paper %}
Paper: {{ card.paper.source }}: \
{% for attack, value in card.paper.results.items() %}{{ attack }} {{ value }}{{ ", " if not loop.last }}{% endfor %}.
{% endif %}
{%- if card.notes %}
{{ card.notes }}
{% endif %}
{%- endfor %}""",
    "recipes": """\
# Recipes

`krobust train NAME --profile PROFILE` trains one, `krobust recipes show NAME` prints its settings. The top level of a
file is the paper's setting; the profile `laptop` fits two CPU cores, `smoke` runs in seconds. This page is made of the
recipes by `python tools/pages.py`.

| recipe | what | source | dataset | epochs: {{ profiles | join(", ") }} |
| --- | --- | --- | --- | --- |
{% for name, settings in presets.items() -%}
| [`{{ name }}`]({{ name }}.yaml) | {{ settings[0].description }} | {{ settings[0].source }} | \
{{ settings[0].dataset }} | {{ settings | map(attribute="epochs") | join(", ") }} |
{% endfor %}""",
}


def zoo_page() -> str:
    """The model table and a paragraph on each model."""
    cards = [card for card in zoo.list() if (packaged("zoo") / card.name).is_dir()]
    attacks = list(dict.fromkeys(attack for card in cards for attack in card.results if attack != "worst_case"))
    return _render("zoo", cards=cards, attacks=attacks, cell=_cell)


def recipes_page() -> str:
    """The table of recipes."""
    presets = {name: [recipes.load(name, profile) for profile in PROFILES] for name in recipes.names()}
    return _render("recipes", presets=presets, profiles=PROFILES)


def write_pages() -> Iterable[Path]:
    """Write both pages and return their paths."""
    pages = {packaged("zoo") / "README.md": zoo_page(), packaged("recipes") / "README.md": recipes_page()}
    for path, text in pages.items():
        path.write_text(text)
    return pages


def _cell(card: zoo.Card, attack: str) -> str:
    quoted = (card.paper or {}).get("results", {}).get(attack)
    measured = card.results.get(attack)
    return ("" if measured is None else f"{measured:.1f}") + ("" if quoted is None else f" / {quoted}")


def _render(page: str, **values: object) -> str:
    environment = Environment(trim_blocks=False, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(_TEMPLATES[page]).render(**values).rstrip() + "\n"


if __name__ == "__main__":
    for written in write_pages():
        print(written)
