"""Picture files of every kind that users have, and the ones that are none."""

import errno
import os
import re
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from i2i_lib.data import picture_cache
from i2i_lib.data.picture_cache import FileImages
from i2i_lib.data.pictures import list_pictures, read_picture, read_tile


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    """RGB [H, W, 3]: red grows to the right, green downwards."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 255, width)
    picture[..., 1] = np.linspace(0, 255, height)[:, None]
    return picture


@pytest.fixture
def save(tmp_path):
    def save(name: str, picture: Image.Image | bytes | np.ndarray, **options):
        path = tmp_path / name
        if isinstance(picture, bytes):
            path.write_bytes(picture)
        else:
            (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
        return path

    return save


def test_every_kind_of_picture_becomes_rgb(save):
    rgb = torch.from_numpy(gradient()).permute(2, 0, 1)
    image = Image.fromarray(gradient())
    assert torch.equal(read_picture(save("a.png", image)), rgb)

    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = torch.from_numpy(grey).expand(3, 16, 16)
    assert torch.equal(read_picture(save("grey.png", grey)), expected)
    for name in ("deep.png", "deep.tif"):
        assert torch.equal(read_picture(save(name, grey.astype(np.uint16) * 257)), expected), "16 bits keep their range"
    deep = b"P5 16 16 65535\n" + (grey.astype(">u2") * 257).tobytes()
    assert torch.equal(read_picture(save("deep.pgm", deep)), expected)

    # CMYK without black is the negative of RGB.
    cmyk = np.concatenate([255 - gradient(), np.zeros((40, 60, 1), np.uint8)], 2)
    for name, off in (("cmyk.tif", 0), ("cmyk.jpg", 6)):
        made = read_picture(save(name, Image.merge("CMYK", [Image.fromarray(c) for c in cmyk.transpose(2, 0, 1)])))
        assert (made.int() - rgb.int()).abs().max() <= off
    assert (read_picture(save("one-bit.png", image.convert("1"))) % 255 == 0).all()


def test_what_is_transparent_is_white(save):
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[:, :30], alpha[:20, 30:] = 0, 128
    rgba = np.dstack([gradient(), alpha])
    made = read_picture(save("a.png", rgba)).permute(1, 2, 0).numpy()
    assert (made[:, :30] == 255).all() and (made[20:, 30:] == gradient()[20:, 30:]).all()
    assert abs(made[:20, 30:] - (gradient()[:20, 30:] * (128 / 255) + 255 * (127 / 255))).max() <= 1

    palette = Image.fromarray((np.arange(64).reshape(8, 8) % 3).astype(np.uint8), "L").convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    made = read_picture(save("p.gif", palette, transparency=1))
    assert made[:, 0, :3].T.tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(save, orientation):
    """A camera that stores `sideways` with this orientation meant the upright picture."""
    upright = Image.fromarray(gradient())
    store = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    sideways = upright.transpose(store[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    made = read_picture(save("a.png", sideways, exif=exif))
    assert torch.equal(made, torch.from_numpy(gradient()).permute(2, 0, 1))


def test_what_is_no_picture_is_refused_by_name(save, tmp_path, monkeypatch):
    whole = save("whole.jpg", gradient(400, 400)).read_bytes()
    png = save("whole.png", gradient(400, 400)).read_bytes()
    torn = {"empty.jpg": b"", "text.jpg": b"Dear diary", "half.jpg": whole[: len(whole) // 2], "head.png": png[:30]}
    for name, content in torn.items():
        path = save(name, content)
        for read in (read_picture, lambda path: read_tile(path, 32)):
            with pytest.raises(ValueError, match=re.escape(name)):
                read(path)
    with pytest.raises(ValueError, match="32 bits"):
        read_picture(save("float.tif", gradient()[..., 0].astype(np.float32)))
    with pytest.raises(ValueError, match="32 bits"):  # scaled as if they were 16, these would come out black
        read_picture(save("whole.tif", gradient()[..., 0].astype(np.int32)))
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        read_picture(tmp_path / "gone.jpg")
    for limit in (100_000, 50_000):  # Pillow warns above its limit and refuses above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ValueError, match=r"whole\.png"):
            read_picture(tmp_path / "whole.png")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_12_bits_in_a_file_of_16_are_refused(save, suffix):
    values = np.linspace(0, 4000, 256).astype(np.uint16).reshape(16, 16)
    with pytest.raises(ValueError, match=r"its 16-bit values are not above 4,000 of 65,535.* \(by 16 if"):
        read_picture(save(f"grey.{suffix}", values))
    assert read_picture(save(f"full.{suffix}", values * 16)).max() > 240
    assert not read_picture(save(f"black.{suffix}", values * 0)).any()


def tiff(bands: np.ndarray) -> bytes:
    """A TIFF [H, W, C] of numbers that Pillow does not write, without compression."""
    height, width, count = bands.shape
    tags = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    kind = {"u": 1, "i": 2, "f": 3}[bands.dtype.kind]
    lists = {258: (8 * bands.itemsize,) * count, 339: (kind,) * count}
    if count in (2, 4):
        lists[338] = (2,)
    for tag, value in {256: width, 257: height, 259: 1, 262: 2 if count > 2 else 1, 277: count, 278: height}.items():
        tags[tag] = value
    for tag, value in lists.items():
        tags[tag] = value
    tags[273], tags[279] = 0, bands.nbytes  # the first is counted from the end of the tags
    return b"II*\0\x08\0\0\0" + tags.tobytes(8) + bands.astype(bands.dtype.newbyteorder("<")).tobytes()


def test_16_bits_of_colour_keep_their_range_or_are_refused(save):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16, 1).repeat(3, 2)
    made = read_picture(save("full.tif", tiff(ramp)))
    assert (made[0].numpy() - ramp[..., 0] // 256 == 0).all()
    with pytest.raises(ValueError, match=r"its 16-bit values are not above 4,095 of 65,535"):
        read_picture(save("dark.tif", tiff(ramp // 16)))


def test_pictures_that_are_not_supported_are_called_so(save):
    flat = np.full((6, 6, 1), 90)
    for kind, count, called in (
        (np.float32, 3, "3 bands of floats of 32 bits"),
        (np.uint16, 2, "2 bands of unsigned integers of 16 bits"),
        (np.uint8, 5, "5 bands of unsigned integers of 8 bits"),
        (np.int16, 1, "1 band of signed integers of 16 bits"),
    ):
        path = save("a.tif", tiff(flat.astype(kind).repeat(count, 2)))
        with pytest.raises(
            ValueError, match=rf"a\.tif is a picture, but has {called}, which is not supported: save it"
        ):
            read_picture(path)
    with pytest.raises(ValueError, match="is a HEIC picture, whatever its name"):
        read_picture(save("IMG_1.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"))
    with pytest.raises(ValueError, match=r"torn\.tif cannot be decoded"):
        read_picture(save("torn.tif", b"II*\0\xff\xff\0\0ab"))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ENOSPC])
def test_errors_of_the_system_are_not_called_damage(save, monkeypatch, number):
    path = save("a.png", gradient())
    where = "builtins.open" if number == errno.EMFILE else "PIL.ImageFile.ImageFile.load"

    def fails(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(where, fails)
        with pytest.raises(OSError, match=rf"{re.escape(os.strerror(number))}: .*a\.png") as error:
            read_picture(path)
    assert error.value.errno == number


def test_a_tile_is_the_middle_square_without_aliasing(save):
    wide = np.zeros((50, 150, 3), np.uint8)
    wide[:, 50:100] = gradient(50, 50)
    assert torch.equal(read_tile(save("wide.png", wide), 50)[0], torch.from_numpy(gradient(50, 50)).permute(2, 0, 1))
    fine = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    for name in ("fine.png", "fine.jpg"):  # the second is reduced by the decoder first
        assert (read_tile(save(name, fine, quality=100), 32).int() - 128).abs().max() <= 3
    assert read_tile(save("small.png", gradient(7, 5)), 64).shape == (1, 3, 64, 64)

    pair = read_tile(save("pair.png", np.concatenate([gradient(64, 64), 255 - gradient(64, 64)], 1)), 64, halves=2)
    assert torch.equal(pair[0], torch.from_numpy(gradient(64, 64)).permute(2, 0, 1))
    assert torch.equal(pair[1], 255 - pair[0])
    with pytest.raises(ValueError, match=r"thin\.png is 1 pixels wide"):
        read_tile(save("thin.png", gradient(9, 1)), 8, halves=2)


def test_listing_skips_what_is_no_picture(save, tmp_path):
    for name in ("b.JPG", "a.png", ".hidden.png"):
        save(name, gradient(4, 4))
    save("Thumbs.db", b"x")
    (tmp_path / "folder.png").mkdir()
    assert list(list_pictures(tmp_path)) == ["a.png", "b.JPG"]
    with pytest.raises(ValueError, match=r"holds no pictures \(it is empty\): expected files that end in"):
        list_pictures(tmp_path / "folder.png")
    (tmp_path / "folder.png" / "IMG_1.HEIC").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"other files: 1 of \.heic: export those that are pictures"):
        list_pictures(tmp_path / "folder.png")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        list_pictures(tmp_path / "nowhere")


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files decoded so far."""
    names, read = [], picture_cache.read_tile

    def counted(path, *arguments, **options):
        names.append(path.name)
        return read(path, *arguments, **options)

    monkeypatch.setattr(picture_cache, "read_tile", counted)
    return names


def some_pictures(folder, n=6):
    folder.mkdir()
    ramp = np.broadcast_to(np.arange(18, dtype=np.uint8)[:, None], (9, 18, 3))
    for i in range(n):
        Image.fromarray(ramp + np.uint8(10 * i)).save(folder / f"{i}.png")
    return list_pictures(folder)


def test_files_index_like_a_tensor_and_are_decoded_once(tmp_path, decoded):
    files = some_pictures(tmp_path / "in")
    images = FileImages(tmp_path / "in", files, 8, cache=tmp_path / "cache")
    whole = torch.stack([read_tile(tmp_path / "in" / name, 8)[0] for name in files])
    assert decoded == [] and images.shape == whole.shape and len(images) == 6
    for index in (2, slice(1, 4), [5, 0, 0], torch.tensor([3, 3, 1]), slice(0, 0), torch.arange(6) > 3):
        assert torch.equal(images[index], whole[index])
    assert images.to("meta")[:2].device.type == "meta" and images[:2].device.type == "cpu"
    again = FileImages(**images.record(), cache=tmp_path / "cache")  # as another process would
    assert torch.equal(again[:], whole)
    assert sorted(decoded) == sorted(files)
    with pytest.raises(IndexError):
        images[6]


def test_both_halves_come_from_one_decoding(tmp_path, decoded):
    files = some_pictures(tmp_path / "in")
    left = FileImages(tmp_path / "in", files, 8, halves=2)
    whole = torch.stack([read_tile(tmp_path / "in" / name, 8, 2) for name in files])
    assert torch.equal(left[[4, 2]], whole[[4, 2], 0])
    assert torch.equal(left.other_half()[[4, 2]], whole[[4, 2], 1]) and torch.equal(left.other_half()[:], whole[:, 1])
    assert sorted(decoded) == sorted(files)


def test_a_torn_cache_is_mended(tmp_path, decoded):
    images = FileImages(tmp_path / "in", some_pictures(tmp_path / "in"), 8, cache=tmp_path / "cache")
    whole = images[:]
    for number, damage in {1: lambda c: c[:100] + b"?" + c[101:], 3: lambda c: b"", 5: lambda c: c[:-1]}.items():
        file = tmp_path / "cache" / str(number)
        file.write_bytes(damage(file.read_bytes()))
    decoded.clear()
    assert torch.equal(images[:], whole) and sorted(decoded) == ["1.png", "3.png", "5.png"]


def test_a_file_that_changed_is_named(tmp_path):
    images = FileImages(tmp_path / "in", some_pictures(tmp_path / "in"), 8)
    (tmp_path / "in" / "4.png").write_bytes(b"else")
    with pytest.raises(ValueError, match=r"4\.png has 4 bytes and had \d+ when"):
        images[:6:2]


def test_the_sum_of_a_picture_is_checked_once(tmp_path, monkeypatch):
    images = FileImages(tmp_path / "in", some_pictures(tmp_path / "in"), 8, halves=2)
    whole, summed = images[:], []
    counted = SimpleNamespace(crc32=lambda data: summed.append(len(data)) or zlib.crc32(data))
    monkeypatch.setattr(picture_cache, "zlib", counted)
    for _ in range(3):
        assert torch.equal(images[:], whole) and not torch.equal(images.other_half()[:], whole)
    assert len(summed) == 6
