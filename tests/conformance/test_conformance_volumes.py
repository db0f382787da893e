"""Volumes: their data goes only where that is asked for."""

import io
import tarfile

from grounds import Ground

from reconciler.engine.tarstream import TarStream
from reconciler.model.events import silent
from reconciler.model.observation import Phase


def test_create_makes_it_and_may_come_twice_with_its_data(ground: Ground) -> None:
    data = ground.volume()
    assert ground.status(data).phase is Phase.MISSING
    ground.create(data)
    ground.write_data(data, "precious")
    assert ground.create(data).phase is Phase.PRESENT
    assert ground.read_data(data) == "precious"
    assert ground.drifted() == []


def test_update_keeps_its_data(ground: Ground) -> None:
    data = ground.volume()
    ground.create(data)
    ground.write_data(data, "precious")
    new = ground.change(data, labels={"a": "1"})
    assert ground.engine.volumes.update(data, new, uses={}, emit=silent).phase is Phase.PRESENT
    assert ground.read_data(data) == "precious"
    assert ground.drifted() == []


def test_delete_keeps_the_data_unless_it_is_told_otherwise(ground: Ground) -> None:
    data = ground.volume()
    ground.create(data)
    ground.write_data(data, "precious")
    ground.engine.volumes.delete(data)
    assert ground.read_data(data) == "precious"
    ground.create(data)
    assert ground.read_data(data) == "precious"
    for _ in range(2):
        ground.engine.volumes.delete(data, data=True)
        assert ground.status(data).phase is Phase.MISSING
    ground.create(data)
    assert ground.read_data(data) == ""


def test_delete_of_one_that_was_never_made_is_no_error(ground: Ground) -> None:
    data = ground.volume()
    ground.engine.volumes.delete(data)
    ground.engine.volumes.delete(data, data=True)
    assert ground.status(data).phase is Phase.MISSING


def test_measured_bytes_are_those_of_its_data(ground: Ground) -> None:
    data = ground.volume()
    assert ground.engine.volumes.measure(data) == 0
    ground.create(data)
    ground.write_data(data, "x" * 5000)
    assert ground.engine.volumes.measure(data) >= 5000


def test_data_outlives_the_containers_that_use_it(ground: Ground) -> None:
    image, network, data = ground.image(), ground.network(), ground.volume()
    web = ground.container("web", image, network, volumes=[data])
    ground.up()
    ground.write_data(data, "precious")
    ground.delete(web)
    assert ground.read_data(data) == "precious"
    ground.up(web)
    assert ground.read_data(data) == "precious"


def test_packed_data_comes_back_into_a_new_volume(ground: Ground) -> None:
    data = ground.volume()
    ground.create(data)
    ground.write_data(data, "precious")
    packed = io.BytesIO()
    with tarfile.open(mode="w|", fileobj=packed, format=tarfile.PAX_FORMAT) as tar:
        assert list(ground.engine.volumes.pack(data, tar)) == []
    ground.engine.volumes.delete(data, data=True)
    ground.create(data)
    assert ground.read_data(data) == ""
    stream = TarStream([packed.getvalue()], what="packed")
    unpacker = ground.engine.volumes.unpack(data)
    for entry in stream.entries():
        unpacker.take(entry, stream.data())
    unpacker.finish()
    unpacker.close()
    assert ground.read_data(data) == "precious"
