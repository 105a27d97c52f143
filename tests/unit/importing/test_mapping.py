from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from position_ledger.errors import ConfigurationError
from position_ledger.importing import load_mapping, preset_names
from position_ledger.importing.mapping import parse_mapping

if TYPE_CHECKING:
    from pathlib import Path

COMPLETE = """
order = "oldest_first"
[columns]
account = "acct"
market = "ticker"
side = "side"
action = "what"
quantity = "count"
price = "price"
time = "at"
"""


def test_every_preset_can_be_used() -> None:
    assert "polymarket-scrape" in preset_names()
    for name in preset_names():
        assert load_mapping(name).name == name


def test_a_mapping_of_the_necessary_keys_has_the_documented_defaults() -> None:
    mapping = parse_mapping("mine", COMPLETE)
    assert (mapping.dust, mapping.on_excess.value, mapping.price.space) == (Decimal(0), "refuse", "own")
    assert (mapping.file.delimiter, mapping.file.encoding, mapping.time.formats) == (",", "utf-8", ("iso",))
    assert (mapping.amount.tolerance, mapping.quantity.sign) == (Decimal("0.01"), "refuse")


def test_fractions_in_toml_are_exact() -> None:
    mapping = parse_mapping("mine", "dust = 0.1\n" + COMPLETE + "[price]\nscale = 0.01\n")
    assert (mapping.dust, mapping.price.scale) == (Decimal("0.1"), Decimal("0.01"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (COMPLETE.replace('"oldest_first"', '"upwards"'), "order cannot be upwards: input should be 'oldest_first'"),
        (COMPLETE.replace("order", "ordre"), "order is missing"),
        (COMPLETE.replace('market = "ticker"', ""), "market is missing; name its column in [columns] or its value"),
        (COMPLETE.replace('price = "price"', ""), "columns.price is missing"),
        (COMPLETE.replace("account", "acount"), "columns.acount is no key of a mapping"),
        ('dust = "-1"\n' + COMPLETE, "dust -1 is outside valid range"),
        ('dust = "much"\n' + COMPLETE, "dust is much, not a finite number"),
        ('on_excess = "ignore"\n' + COMPLETE, "on_excess cannot be ignore: "),
        (COMPLETE + "[constants]\naccount = 'me'\n", "account is both in [columns] and in [constants]"),
        (COMPLETE + "[time]\nzone = 'Mars/Olympus'\n", "time.zone cannot be Mars/Olympus: it is no IANA time zone"),
        (COMPLETE + "[time]\nformats = ['%d.%m.%Y']\n", "format '%d.%m.%Y' does not tell the offset from UTC"),
        (COMPLETE + "[time]\nformats = ['seconds']\n", "time.formats.0 cannot be seconds: give iso, epoch_s"),
        (COMPLETE + "[time]\nformats = []\n", "time.formats cannot be []"),
        (COMPLETE + "[time]\nabbreviations = {EST = '5'}\n", "time.abbreviations.EST cannot be 5: give an offset"),
        (COMPLETE + "[price]\nscale = 0\n", "price.scale cannot be 0: a scale must not be 0"),
        (COMPLETE + "[price]\nscale = -1\n", "price.scale cannot be -1: this scale must be greater than 0"),
        (COMPLETE + "[file]\ndelimiter = '||'\n", "file.delimiter cannot be ||"),
        (COMPLETE + "[file]\nencoding = 'utf-9'\n", "file.encoding cannot be utf-9: it is no text encoding"),
        (COMPLETE + "[file]\nencoding = 'base64'\n", "file.encoding cannot be base64: it is no text encoding"),
        (COMPLETE + "[values.sde]\nYes = 'YES'\n", "values.sde speaks of no text field that has a column"),
        (COMPLETE + "[numbers]\nthousands = '.'\n", "numbers: thousands must be another sign than decimal"),
        (COMPLETE + "[quantity]\nsign = 'action'\n", "takes the action from the sign, so no action may be mapped"),
        ("order = \n", "is no TOML: "),
    ],
)
def test_a_wrong_mapping_is_one_sentence_that_names_key_and_value(text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse_mapping("mine.toml", text)
    assert sentence in str(error.value)
    assert str(error.value).startswith("mapping mine.toml")
    assert "\n" not in str(error.value)


def test_an_unknown_preset_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'kalshi' is no preset \(.*polymarket-scrape.*\)"):
        load_mapping("kalshi")
    with pytest.raises(ConfigurationError, match=r"none\.toml cannot be read: No such file"):
        load_mapping(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(ConfigurationError, match="is not UTF-8 at byte 2"):
        load_mapping(str(tmp_path / "latin.toml"))
