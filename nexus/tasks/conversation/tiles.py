"""Large images are shown to a model of images and texts in tiles (InternVL 1.5, Sec. 3.2, dynamic high resolution)."""

from typing import TYPE_CHECKING

from PIL import Image as PIL

if TYPE_CHECKING:
    from PIL.Image import Image


def choose_grid(size: tuple[int, int], side: int, least: int, most: int) -> tuple[int, int]:
    """Returns the columns and rows of the grid whose proportions are nearest to an image's.

    Of grids that are equally near the one with more tiles is taken where the image has more than half of their pixels.

    Args:
        size: (width, height) of the image in pixels.
        side: Of a tile in pixels.
        least: Fewest tiles.
        most: Most tiles.
    """
    width, height = size
    grids = {(i, j) for i in range(1, most + 1) for j in range(1, most // i + 1) if i * j >= least}
    best, nearest = (1, 1), float("inf")
    for columns, rows in sorted(grids, key=lambda grid: (grid[0] * grid[1], grid)):
        apart = abs(width / height - columns / rows)
        larger = apart == nearest and width * height > 0.5 * side**2 * columns * rows
        if apart < nearest or larger:
            best, nearest = (columns, rows), apart
    return best


def cut_tiles(image: "Image", side: int, least: int, most: int, *, thumbnail: bool) -> "list[Image]":
    """Returns the tiles of an image, row by row, each `side` pixels wide and high, and last the whole of it, small.

    Args:
        image: Of any size.
        side: Of a tile in pixels.
        least: Fewest tiles.
        most: Most tiles.
        thumbnail: Whether the whole image comes last where it is cut.
    """
    columns, rows = choose_grid(image.size, side, least, most)
    whole = image.resize((side * columns, side * rows), PIL.Resampling.BICUBIC)
    places = [(column * side, row * side) for row in range(rows) for column in range(columns)]
    tiles = [whole.crop((x, y, x + side, y + side)) for x, y in places]
    if thumbnail and len(tiles) > 1:
        tiles.append(image.resize((side, side), PIL.Resampling.BICUBIC))
    return tiles
