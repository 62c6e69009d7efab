from cpro.analytics.pins import KEPT, Pins


def test_a_pin_outlives_the_process(tmp_path):
    Pins(tmp_path / "pins").put("a", "http://one:8123")
    assert Pins(tmp_path / "pins").get("a") == "http://one:8123"
    assert Pins(tmp_path / "pins").get("b") is None


def test_the_last_pin_of_a_batch_counts(tmp_path):
    pins = Pins(tmp_path / "pins")
    pins.put("a", "http://one:8123")
    pins.put("a", "http://two:8123")
    pins.put("b", "http://one:8123")
    pins.drop("b")
    for known in (pins, Pins(tmp_path / "pins")):
        assert known.get("a") == "http://two:8123"
        assert known.get("b") is None


def test_old_pins_are_forgotten_and_the_file_stays_small(tmp_path):
    pins = Pins(tmp_path / "pins")
    for number in range(20_000):
        pins._remember(f"{number:064}", "http://one:8123")
    pins.put("last", "http://two:8123")
    again = Pins(tmp_path / "pins")
    assert again.get("last") == "http://two:8123"
    assert again.get(f"{19_999:064}") == "http://one:8123"
    assert again.get(f"{20_000 - KEPT:064}") is None
    assert (tmp_path / "pins").stat().st_size < KEPT * 100
    assert list(tmp_path.iterdir()) == [tmp_path / "pins"]


def test_a_line_that_was_cut_by_a_power_loss_harms_no_other(tmp_path):
    pins = Pins(tmp_path / "pins")
    pins.put("a", "http://one:8123")
    pins.put("b", "http://one:8123")
    with (tmp_path / "pins").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 5)
    again = Pins(tmp_path / "pins")
    assert again.get("a") == "http://one:8123"
    again.put("c", "http://two:8123")
    assert Pins(tmp_path / "pins").get("c") == "http://two:8123"
