"""Text analysis: how texts and searches become words, by what the cluster has.

`python -m slurp.elastic.analysis` prints the examples of docs/text-search.md as `_analyze` requests.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from slurp.documents.record_values import never_visible, visible
from slurp.documents.spellings import APOSTROPHES, other_spellings
from slurp.elastic.features import Features

Json = dict[str, Any]

# Pairs of neighbors in place of words: 東京タワー is 東京, 京タ, タワ, ワー. Texts have single letters, too.
_PAIRS_AND_CHARACTERS: Json = {"type": "cjk_bigram", "output_unigrams": True}
# Marks are left out in these scripts. In others they are vowels, or make other syllables, as in kana.
_FOLDED_SCRIPTS = ("Latin", "Greek", "Cyrillic", "Armenian", "Hebrew", "Arabic", "Common", "Inherited")
_FOLDED_SET = "".join(rf"\p{{{script}}}" for script in _FOLDED_SCRIPTS)
_ICU_FOLDING: Json = {"type": "icu_folding", "unicode_set_filter": rf"[[{_FOLDED_SET}]-[\u3099\u309a\u30fc]]"}
# A word of 4,096 characters, as the ICU tokenizer allows, can become longer than a term may be.
_SHORTER: Json = {"type": "truncate", "length": 512}


def analysis(features: Features) -> Json | None:
    """Return the `analysis` of the index settings; None if the cluster has the analyzer `standard` only."""
    if not features.folding:
        return None
    filters = {"pairs_and_characters": _PAIRS_AND_CHARACTERS}
    tokenizer, folding = "standard", "asciifolding"
    if features.icu:
        tokenizer, folding = "icu_tokenizer", "folding"
        filters |= {folding: _ICU_FOLDING, "shorter": _SHORTER}
    analyzer = {"type": "custom", "char_filter": ["characters"], "tokenizer": tokenizer}
    last = [folding, "shorter"] if features.icu else [folding]
    return {
        "char_filter": {"characters": {"type": "mapping", "mappings": _character_mappings()}},
        "filter": filters,
        "analyzer": {
            "default": {**analyzer, "filter": ["cjk_width", "lowercase", "pairs_and_characters", *last]},
            "default_search": {**analyzer, "filter": ["cjk_width", "lowercase", "cjk_bigram", *last]},
        },
    }


def _character_mappings() -> list[str]:
    """Return rules that replace each apostrophe by `'` and remove invisible characters.

    Texts have none, but what people paste into a search may.
    """
    escaped = [f"\\u{ord(character):04x}=>'" for character in APOSTROPHES]
    return escaped + [f"\\u{ord(character):04x}=>" for character in never_visible()]


class Example(NamedTuple):
    """A search in a text."""

    text: str
    query: str
    small: bool
    """Whether it is found on the small distribution that `make demo` starts."""
    full: bool
    """Whether it is found on a full Elasticsearch."""
    icu: bool
    """Whether it is found on a full Elasticsearch with the plugin `analysis-icu`."""


EXAMPLES = (
    Example("it is #Caturday again", "caturday", small=True, full=True, icu=True),
    Example("I don’t know", "don't", small=True, full=True, icu=True),
    Example("I don't know", "don’t", small=True, full=True, icu=True),
    Example("a café in the Straße", "cafe strasse", small=True, full=True, icu=True),
    Example("a cafe in Łódź", "café", small=False, full=True, icu=True),
    Example("word\u00adbreak", "wordbreak", small=True, full=True, icu=True),
    Example("γειά σου", "γεια", small=True, full=True, icu=True),
    Example("γεια σου", "γειά", small=False, full=False, icu=True),
    Example("ещё раз", "еще", small=True, full=True, icu=True),
    Example("שָׁלוֹם", "שלום", small=True, full=True, icu=True),
    Example("ＡＢＣ ｶﾌｪ", "abc カフェ", small=True, full=True, icu=True),
    Example("猫が好き", "猫", small=True, full=True, icu=True),
    Example("東京タワー", "タワー", small=True, full=True, icu=True),
    Example("ネコカフェ", "カフェ", small=False, full=True, icu=True),
    Example("고양이가 좋아요", "고양이", small=True, full=True, icu=True),
    Example("길고양이", "고양이", small=False, full=True, icu=True),
    Example("ฉันรักแมว", "แมว", small=False, full=False, icu=True),
    Example("ខ្ញុំស្រឡាញ់ឆ្មា", "ឆ្មា", small=False, full=False, icu=True),
    Example("ພາສາລາວ", "ລາວ", small=False, full=False, icu=True),
    Example("🦋 day", "🦋", small=True, full=True, icu=True),
    Example("see https://example.com/needle", "example.com needle", small=True, full=True, icu=True),
    Example("#black_cats", "black", small=False, full=False, icu=False),
    Example("two cats", "cat", small=False, full=False, icu=False),
)


def analyze_request(features: Features, text: str, analyzer: str) -> Json:
    """Return the body of the `_analyze` request that shows the words of a text on a cluster with `features`.

    `analyzer` is `default` for texts, `default_search` for searches.
    """
    settings = analysis(features)
    if settings is None:
        return {"analyzer": "standard", "text": text}
    parts = settings["analyzer"][analyzer]
    return {
        "tokenizer": parts["tokenizer"],
        "char_filter": [settings["char_filter"][name] for name in parts["char_filter"]],
        "filter": [settings["filter"].get(name, name) for name in parts["filter"]],
        "text": text,
    }


def indexed_text(text: str) -> str:
    """Return a text with its other spellings, as it is indexed."""
    return f"{visible(text)} {other_spellings(text) or ''}".strip()


def main() -> None:
    """Print two requests for each example and kind of cluster, for the console of Kibana."""
    print("# A text is found if each word in the answer to the second request is in the answer to the first.")
    for example in EXAMPLES:
        kinds = (
            ("the small distribution", Features(), example.small),
            ("a full Elasticsearch", Features(folding=True), example.full),
            ("a full Elasticsearch with analysis-icu", Features(folding=True, icu=True), example.icu),
        )
        for title, features, found in kinds:
            print(f"\n# On {title} {example.query} is {'found' if found else 'not found'} in: {example.text}")
            text = indexed_text(example.text)
            for body in (
                analyze_request(features, text, "default"),
                analyze_request(features, example.query, "default_search"),
            ):
                print(f"POST _analyze\n{json.dumps(body, ensure_ascii=False)}")


if __name__ == "__main__":
    main()
