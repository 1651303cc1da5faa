"""The page about from_torch runs as printed."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "mithril-from-torch.md"


def test_the_page_runs(tmp_path, capsys, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 6
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks))
    exec(compile(script.read_text(), str(script), "exec"), {"__name__": "page"})
    printed = capsys.readouterr().out
    assert "def block(params, prefix, x):" in printed
    assert "blocks_0" in printed
    assert "The module's control flow depends on the values of its data." in printed
