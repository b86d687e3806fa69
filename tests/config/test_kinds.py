"""Any value is read or refused in one line, and reads back as it is shown."""

import datetime

from hypothesis import given
from hypothesis import strategies as st

from gatewayx.config.setting_table import SETTINGS, Setting
from gatewayx.config.settings import LARGEST_WORKLOAD_BYTES
from gatewayx.errors import SettingError

BY_NAME = {setting.name: setting for setting in SETTINGS}

toml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.just(datetime.time()),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)


@given(st.sampled_from(SETTINGS), toml_values)
def test_any_value_is_read_or_refused_in_one_line(setting: Setting, value: object) -> None:
    try:
        parsed = setting.parse(value, "flag")
    except SettingError as error:
        message = str(error)
    else:
        message = ""
        assert setting.kind.parse(setting.kind.show(parsed)) == parsed
    assert message.isascii()
    assert message.isprintable()


@given(st.integers(1, LARGEST_WORKLOAD_BYTES))
def test_a_size_reads_back_as_shown(size_bytes: int) -> None:
    kind = BY_NAME["max_body_bytes"].kind

    assert kind.parse(kind.show(size_bytes)) == size_bytes


@given(st.floats(0.01, 3600))
def test_a_duration_reads_back_as_shown(duration_s: float) -> None:
    kind = BY_NAME["header_timeout_s"].kind

    assert kind.parse(kind.show(duration_s)) == duration_s
