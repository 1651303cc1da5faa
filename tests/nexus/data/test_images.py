"""Reading images: every kind becomes RGB, grey or an array, and every bad file an error that names it, fast."""

import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PIL
from PIL import ImageOps

from nexus.data import ImageError, load_image
from nexus.data.images import EXTENSIONS, MAX_PIXELS, as_array, match_channels, open_image

GRADIENT = np.add.outer(np.arange(20) * 8, np.arange(30) * 3).astype(np.uint8)
COLOURS = np.stack([GRADIENT, GRADIENT[::-1], GRADIENT[:, ::-1]], axis=2)
RGB, GREY = PIL.fromarray(COLOURS), PIL.fromarray(GRADIENT)


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_orientation(image, orientation, kind="JPEG"):
    exif = PIL.Exif()
    exif[0x0112] = orientation
    return encode(image, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


# Kinds of good images


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "WEBP"])
def test_rgb_and_grey_come_through_whole(tmp_path, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    for image in (RGB, GREY):
        if kind == "WEBP" and image is GREY:
            continue
        path = tmp_path / f"x.{kind.lower()}"
        path.write_bytes(encode(image, kind, **options))
        for source in (path, str(path), path.read_bytes()):
            loaded = load_image(source)
            assert loaded.mode == image.mode
            assert np.array_equal(np.asarray(loaded), np.asarray(image))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    loaded = load_image(with_orientation(RGB, orientation, kind))
    plain = PIL.open(io.BytesIO(encode(RGB, kind, **({"quality": 95} if kind == "JPEG" else {})))).convert("RGB")
    turns = [
        None,
        PIL.Transpose.FLIP_LEFT_RIGHT,
        PIL.Transpose.ROTATE_180,
        PIL.Transpose.FLIP_TOP_BOTTOM,
        PIL.Transpose.TRANSPOSE,
        PIL.Transpose.ROTATE_270,
        PIL.Transpose.TRANSVERSE,
        PIL.Transpose.ROTATE_90,
    ]
    turn = turns[orientation - 1]
    expected = plain if turn is None else plain.transpose(turn)
    assert loaded.size == expected.size == ((20, 30) if orientation >= 5 else (30, 20))
    assert np.array_equal(np.asarray(loaded), np.asarray(expected))


def test_a_senseless_orientation_changes_nothing():
    assert load_image(with_orientation(RGB, 77)).size == RGB.size


def test_transparency_is_composited_over_white():
    rgba = np.dstack([COLOURS, np.full((20, 30), 255, np.uint8)])
    rgba[:, :10, 3], rgba[:, 10:20, 3] = 0, 51
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        loaded = np.asarray(load_image(encode(PIL.fromarray(rgba), kind, **options)), float)
        expected = COLOURS * (rgba[:, :, 3:] / 255) + 255 * (1 - rgba[:, :, 3:] / 255)
        assert np.abs(loaded - expected).max() <= 1
        assert (loaded[:, :10] == 255).all()
        assert np.array_equal(loaded[:, 20:], COLOURS[:, 20:])


def test_grey_with_alpha_stays_grey():
    alpha = PIL.fromarray(np.where(np.arange(30) < 10, 0, 255).astype(np.uint8)[None].repeat(20, 0))
    loaded = load_image(encode(PIL.merge("LA", (GREY, alpha))))
    assert loaded.mode == "L"
    assert (np.asarray(loaded)[:, :10] == 255).all()
    assert np.array_equal(np.asarray(loaded)[:, 10:], GRADIENT[:, 10:])


def test_palettes_become_their_colours():
    palette = RGB.quantize(16)
    loaded = load_image(encode(palette))
    assert loaded.mode == "RGB"
    assert np.array_equal(np.asarray(loaded), np.asarray(palette.convert("RGB")))
    # The colour that is most used becomes transparent, thus white.
    most = int(np.bincount(np.asarray(palette).ravel()).argmax())
    see_through = np.asarray(load_image(encode(palette, transparency=most)))
    assert (see_through[np.asarray(palette) == most] == 255).all()
    assert np.array_equal(see_through[np.asarray(palette) != most], np.asarray(loaded)[np.asarray(palette) != most])


def test_one_bit_images_become_black_and_white():
    bits = PIL.fromarray(GRADIENT > 100)
    for kind in ("PNG", "TIFF", "BMP"):
        loaded = load_image(encode(bits, kind))
        assert loaded.mode == "L"
        assert np.array_equal(np.asarray(loaded), np.where(GRADIENT > 100, 255, 0))


def test_cmyk_becomes_rgb():
    for kind in ("JPEG", "TIFF"):
        options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
        loaded = load_image(encode(RGB.convert("CMYK"), kind, **options))
        assert loaded.mode == "RGB"
        assert np.abs(np.asarray(loaded, float) - COLOURS).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_and_not_clipped(kind):
    deep = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    loaded = load_image(encode(PIL.fromarray(deep), kind))
    assert loaded.dtype == np.float32
    assert loaded.shape == (20, 30, 1)
    np.testing.assert_allclose(loaded[:, :, 0], deep / 65535, atol=1e-6)
    assert len(np.unique(loaded)) > 590


def test_16_bit_big_endian_and_32_bit_integers():
    deep = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    big = PIL.frombytes("I;16B", (30, 20), deep.astype(">u2").tobytes())
    np.testing.assert_allclose(load_image(encode(big, "TIFF"))[:, :, 0], deep / 65535, atol=1e-6)
    np.testing.assert_allclose(
        load_image(encode(PIL.fromarray(deep.astype(np.int32)), "TIFF"))[:, :, 0], deep / 65535, atol=1e-6
    )
    with pytest.raises(ImageError, match="32-bit integers from -1 to 5 have no known range"):
        load_image(encode(PIL.fromarray(np.array([[-1, 5]], np.int32)), "TIFF"))


def test_float_tiff_keeps_its_numbers():
    metres = np.linspace(-2, 40, 600, dtype=np.float32).reshape(20, 30)
    assert np.array_equal(load_image(encode(PIL.fromarray(metres), "TIFF"))[:, :, 0], metres)
    metres[3, 4] = np.nan
    with pytest.raises(ImageError, match="not finite"):
        load_image(encode(PIL.fromarray(metres), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_read(kind):
    frames = [PIL.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    loaded = load_image(encode(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert np.abs(np.asarray(loaded, float) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, ">u2", "<f2", np.bool_])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 8)])
def test_npy_files(tmp_path, dtype, shape):
    values = (np.random.default_rng(0).random(shape) * (1 if np.dtype(dtype).kind in "fb" else 250)).round(1)
    values = values.astype(dtype)
    for array in (values, np.asfortranarray(values)):
        np.save(tmp_path / "x.npy", array)
        loaded = load_image(tmp_path / "x.npy")
        scale = {"u": 255 if np.dtype(dtype).itemsize == 1 else 65535, "f": 1, "b": 1}[np.dtype(dtype).kind]
        divisor = 255 if loaded.dtype == np.uint8 else 1
        assert loaded.dtype in (np.uint8, np.float32)
        assert loaded.shape == (*shape, 1)[:3]
        np.testing.assert_allclose(loaded.reshape(shape) / divisor, values / scale, atol=1e-6)


def test_a_tiff_of_more_channels_points_to_npy(needed, tmp_path):
    tifffile = needed("tifffile")
    tifffile.imwrite(
        tmp_path / "x.tif", np.zeros((20, 30, 8), np.uint16), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(
        ImageError, match=r"x\.tif .*read it with tifffile\.imread and np\.save it as \.npy of shape \(h, w, c\)"
    ):
        load_image(tmp_path / "x.tif")


def test_what_is_in_memory_is_taken_too():
    assert load_image(RGB) is RGB
    assert load_image(RGB.convert("RGBA")).mode == "RGB"
    turned = PIL.open(io.BytesIO(with_orientation(RGB, 6)))
    assert load_image(load_image(turned)).size == (20, 30)
    with pytest.raises(ImageError, match="truncated or corrupt"):
        load_image(PIL.open(io.BytesIO(encode(NOISE)[:2000])))
    assert load_image(COLOURS) is COLOURS
    assert np.array_equal(load_image(torch.from_numpy(COLOURS).permute(2, 0, 1)), COLOURS)
    with pytest.raises(ImageError, match=r"shape \(2, 3, 4, 5\) is not an image"):
        load_image(np.zeros((2, 3, 4, 5), np.uint8))
    with pytest.raises(ImageError, match=r"shape \(0, 4, 3\) is not an image"):
        load_image(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(ImageError, match="type int64 have no known range"):
        load_image(np.zeros((4, 4, 3), np.int64))


def test_a_wrong_extension_does_no_harm(tmp_path):
    (tmp_path / "x.jpg").write_bytes(encode(RGB, "PNG"))
    assert np.array_equal(np.asarray(load_image(tmp_path / "x.jpg")), COLOURS)
    np.save(tmp_path / "x.npy", COLOURS)
    (tmp_path / "x.npy").rename(tmp_path / "x.png")
    assert np.array_equal(load_image(tmp_path / "x.png"), COLOURS)


def test_only_a_plain_jpeg_waits_to_be_decoded():
    waiting = open_image(encode(RGB, "JPEG"))
    waiting.draft(None, (4, 3))
    assert waiting.size == (8, 5)
    turned = open_image(with_orientation(RGB, 6))
    turned.draft(None, (4, 3))
    assert turned.size == (20, 30)


def test_grey_and_rgb_are_made_of_each_other():
    assert match_channels(RGB, 3) is RGB
    for image in (RGB, COLOURS, COLOURS.astype(np.float32) / 255):
        grey = as_array(match_channels(image, 1))
        grey = grey * 255 if grey.dtype == np.float32 else grey
        assert np.abs(grey[:, :, 0] - np.asarray(RGB.convert("L"), float)).max() <= 1
    for image in (GREY, GRADIENT[:, :, None]):
        assert (as_array(match_channels(image, 3)) == GRADIENT[:, :, None]).all()


def test_every_extension_is_of_a_format_that_is_read():
    PIL.init()
    for extension in EXTENSIONS - {".npy"}:
        assert extension in PIL.registered_extensions(), extension


# Bad files


def png(width, height, data=b"", *chunks):
    """A PNG that claims a size, with the given compressed data."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"".join(chunk(*item) for item in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def npy(header, data=b""):
    header = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def claims(image, kind, old, new):
    """An image file whose header claims another size."""
    data = encode(image, kind)
    assert old in data
    return data.replace(old, new, 1)


JPEG_20_30, JPEG_HUGE = struct.pack(">HH", 20, 30), struct.pack(">HH", 65000, 65000)
NOISE = PIL.fromarray(np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8))
PALETTED = encode(RGB.quantize(8), "GIF")

HOSTILE = {
    "empty": (b"", "is empty"),
    "one_byte": (b"\xff", "not an image of a known format"),
    "zeros": (bytes(1000), "not an image of a known format"),
    "text": (b"just some text\n" * 20, "not an image of a known format"),
    "html": (b"<!DOCTYPE html>\n<html><body>404</body></html>", "is a web page"),
    "html_upper": (b"\n  <HTML><head></head></HTML>", "is a web page"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "is a web page or XML"),
    "xml": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is a web page or XML"),
    "lfs_pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
    "pdf": (b"%PDF-1.7\n" + bytes(300), "not an image of a known format"),
    "zip": (b"PK\x03\x04" + bytes(300), "not an image of a known format"),
    "script": (b"#!/bin/sh\nrm -rf /\n", "not an image of a known format"),
    "pickle": (b"cos\nsystem\n(S'true'\ntR.", "not an image of a known format"),
    "eps_is_not_run": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "known format"),
    "fits_is_not_tried": (b"SIMPLE  =                    T".ljust(2880), "known format"),
    "png_bomb": (png(30000, 30000, zlib.compress(bytes(10000))), "pixels"),
    "png_bomb_12k": (png(12000, 12000, zlib.compress(bytes(10000))), "pixels"),
    "png_sides_at_limit": (png(2**31 - 1, 2**31 - 1), "pixels|corrupt"),
    "png_zero_size": (png(0, 0), "truncated or corrupt"),
    "png_no_data": (png(10, 10), "truncated or corrupt"),
    "png_wrong_data": (png(10, 10, b"no zlib at all"), "truncated or corrupt"),
    "png_text_bomb": (
        png(10, 10, zlib.compress(bytes(310)), (b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20), 1))),
        "truncated or corrupt",
    ),
    "png_iccp_bomb": (
        png(10, 10, b"", (b"iCCP", b"a\0\0" + zlib.compress(bytes(200 << 20), 1))),
        "truncated or corrupt",
    ),
    "png_bad_crc": (encode(RGB).replace(b"IHDR\x00", b"IHDR\x01", 1), "truncated or corrupt"),
    "jpeg_bomb": (claims(RGB, "JPEG", JPEG_20_30, JPEG_HUGE), "pixels"),
    "jpeg_only_header": (encode(NOISE, "JPEG")[:200], "truncated or corrupt"),
    "jpeg_no_scan": (b"\xff\xd8\xff\xd9", "truncated or corrupt"),
    "gif_bomb": (PALETTED[:6] + struct.pack("<HH", 65535, 65535) + PALETTED[10:], "pixels"),
    "gif_no_frame": (PALETTED[:13], "truncated or corrupt"),
    "bmp_bomb": (claims(RGB, "BMP", struct.pack("<ii", 30, 20), struct.pack("<ii", 60000, 60000)), "pixels"),
    "bmp_short": (encode(RGB, "BMP")[:100], "truncated or corrupt"),
    "ppm_bomb": (b"P6 99999 99999 255\n", "pixels"),
    "ppm_endless_side": (b"P6 30 2031640 255\n" + bytes(3000), "65,535 for a side"),
    "ppm_short": (b"P6 20 20 255\n" + bytes(30), "truncated or corrupt"),
    "ppm_letters": (b"P3 2 2 255\nred green blue", "truncated or corrupt"),
    "webp_short": (encode(NOISE, "WEBP")[:100], "truncated or corrupt"),
    "webp_header": (b"RIFF\x10\0\0\0WEBPVP8 ", "truncated or corrupt"),
    "tiff_short": (encode(NOISE, "TIFF")[:400], "truncated or corrupt|TIFF"),
    "tiff_header": (b"II*\0\x08\0\0\0", "truncated or corrupt|TIFF"),
    "tiff_cyclic": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "truncated or corrupt|TIFF"),
    "avif_short": (encode(NOISE, "AVIF")[:200], "truncated or corrupt|known format"),
    "npy_bomb": (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 100000, 3)}"), "pixels"),
    "npy_many_channels": (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (9, 9, 999999999999)}"), "truncated"),
    "npy_negative": (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 5)}"), "has shape"),
    "npy_four_axes": (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 3, 4)}", bytes(24)), "has shape"),
    "npy_empty": (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 5)}"), "has shape"),
    "npy_truncated": (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (5, 5)}", bytes(24)), "truncated"),
    "npy_objects": (
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}", b"cos\nsystem\n."),
        "Python objects",
    ),
    "npy_text": (npy("{'descr': '<U4', 'fortran_order': False, 'shape': (2, 2)}", bytes(64)), "no known range"),
    "npy_records": (npy("{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (2, 2)}", bytes(4)), "known range"),
    "npy_header_code": (npy("{'descr': __import__('os').system('true'), 'shape': (2, 2)}"), "header"),
    "npy_header_short": (b"\x93NUMPY\x01\x00\xff\xff{'descr", "header"),
    "npy_version": (b"\x93NUMPY\x09\x00" + bytes(100), "header"),
    "npy_nan": (
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1)}", struct.pack("<f", float("nan"))),
        "finite",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_named_refused_and_fast(tmp_path, case):
    data, message = HOSTILE[case]
    path = tmp_path / f"{case}.png"
    path.write_bytes(data)
    start = time.perf_counter()
    with pytest.raises(ImageError, match=message) as caught:
        load_image(path)
    assert time.perf_counter() - start < 2
    assert str(path) in str(caught.value)
    assert str(caught.value).count(str(path)) == 1
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
def test_truncation_at_ten_places(tmp_path, kind):
    whole = encode(NOISE.convert("L") if kind == "GIF" else NOISE, kind)
    path = tmp_path / "cut.img"
    for tenth in range(10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(ImageError, match=r"cut\.img"):
            load_image(path)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(ImageError, match=r"missing\.png does not exist; check the path"):
        load_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="is not a file"):
        load_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe\.png is not a file"):
        load_image(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="cannot be read"):
        load_image("a\0b.png")


def test_the_cap_can_be_chosen_and_holds_before_decoding():
    assert load_image(encode(RGB), max_pixels=600).size == (30, 20)
    with pytest.raises(ImageError, match=r"upload has 30 x 20 pixels; the limit is 599"):
        load_image(encode(RGB), max_pixels=599, name="upload")
    assert MAX_PIXELS < 100e6


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "NPY"]),
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_random_changes_give_an_image_or_our_error(kind, changes):
    if kind == "NPY":
        file = io.BytesIO()
        np.save(file, COLOURS)
        data = bytearray(file.getvalue())
    else:
        data = bytearray(encode(GREY if kind == "GIF" else RGB, kind))
    for place, value in changes:
        data[place % len(data)] = value
    try:
        loaded = load_image(bytes(data), max_pixels=1_000_000)
    except ImageError:
        return
    assert isinstance(loaded, np.ndarray) or loaded.mode in ("RGB", "L")


def test_exif_transpose_agrees_with_pillow():
    for orientation in range(1, 9):
        data = with_orientation(RGB, orientation)
        theirs = ImageOps.exif_transpose(PIL.open(io.BytesIO(data)))
        assert np.array_equal(np.asarray(load_image(data)), np.asarray(theirs))


def test_tiffs_keep_their_bands_or_are_refused(needed, tmp_path):
    tifffile = needed("tifffile")
    rng = np.random.default_rng(0)
    four = rng.integers(0, 255, (6, 8, 4), dtype=np.uint8)

    def read(name, array, **options):
        tifffile.imwrite(tmp_path / name, array, **options)
        return load_image(tmp_path / name)

    assert read("alpha.tif", four, photometric="rgb", extrasamples=["unassalpha"]).mode == "RGB"
    grey = rng.integers(0, 65535, (6, 8), dtype=np.uint16)
    inverted = read("white.tif", grey, photometric="miniswhite")
    np.testing.assert_allclose(inverted[..., 0], 1 - grey / 65535, atol=1e-6)
    bands = read("pages.tif", np.stack([grey, grey // 2, grey // 3]), photometric="minisblack")
    np.testing.assert_allclose(bands, np.stack([grey, grey // 2, grey // 3], -1) / 65535, atol=1e-6)
    with tifffile.TiffWriter(tmp_path / "preview.tif") as writer:
        writer.write(four[..., :3], photometric="rgb")
        writer.write(four[::2, ::2, :3], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "preview.tif")), four[..., :3])
    rgb, extra = {"photometric": "rgb"}, {"photometric": "rgb", "extrasamples": ["unspecified"]}
    flat = {"photometric": "minisblack", "planarconfig": "contig"}
    for name, array, options, words in (
        ("nir.tif", four, extra, "4 bands, of which Pillow reads 3"),
        ("two.tif", four[..., :2], flat, "2 bands, of which Pillow reads 1"),
        ("scans.tif", np.stack([four[..., :3]] * 2), rgb, "2 pages that are no bands of one image"),
        ("double.tif", grey / 65535, {}, "1 x 64-bit floats"),
        ("nodata.tif", np.full((6, 8), -3e38, np.float32), {}, "-3e\\+38, a mark of missing pixels"),
    ):
        with pytest.raises(ImageError, match=rf"{name}.*{words}"):
            read(name, array, **options)
