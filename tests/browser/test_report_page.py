"""The page in a real browser: what a person sees, hears and can reach, and that nothing leaves the file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from report_pages import AUDIT, facts, volumes

from synthmed.report import render_report

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PIXELS = """id => {
    const canvas = document.getElementById(id);
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    let coloured = 0, lit = 0, sum = 0;
    for (let k = 0; k < data.length; k += 4) {
        const spread = Math.max(data[k], data[k+1], data[k+2]) - Math.min(data[k], data[k+1], data[k+2]);
        coloured += spread > 20; lit += data[k] > 20; sum += data[k];
    }
    return {coloured, lit, sum};
}"""
PLANES = ("sagittal", "coronal", "axial")


@dataclass
class Visit:
    """An open page, and what the browser said and asked for meanwhile."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def pixels(self, plane: str) -> dict[str, int]:
        return self.page.evaluate(PIXELS, plane)

    def status(self) -> str:
        return self.page.inner_text("#status")

    def wait_for(self, words: str) -> None:
        self.page.wait_for_function("words => document.getElementById('status').textContent.includes(words)", arg=words)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_report(facts()), encoding="utf-8")
    return path


@pytest.fixture
def visit(browser: Any, file: Path, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Open the page, in the context that a test asks for by parameter."""
    context = browser.new_context(**getattr(request, "param", {}))
    visited = Visit(context.new_page())
    visited.page.on("console", lambda message: visited.errors.append(message.text))
    visited.page.on("pageerror", lambda error: visited.errors.append(str(error)))
    visited.page.on("request", lambda asked: visited.requests.append(asked.url))
    visited.page.goto(file.as_uri())
    if context.pages and getattr(request, "param", {}).get("java_script_enabled", True):
        visited.wait_for("volume 1 of 3")
    yield visited
    context.close()


def test_labels_are_coloured_in_every_plane(visit: Visit) -> None:
    for plane in PLANES:
        seen = visit.pixels(plane)
        assert seen["coloured"] > 1000, plane
        assert seen["lit"] > seen["coloured"], plane
    assert visit.page.inner_text("#structures").split("\n") == ["left", "right </script>"]


def test_the_overlay_goes_and_comes_back(visit: Visit) -> None:
    before = visit.pixels("axial")
    visit.page.click("#overlay")
    assert visit.pixels("axial")["coloured"] == 0
    assert visit.pixels("axial")["lit"] > 1000
    visit.page.keyboard.press("o")
    assert visit.pixels("axial") == before
    assert visit.status() == "Labels shown"


def test_opacity_fades_the_labels(visit: Visit) -> None:
    visit.page.fill("#opacity", "0")
    assert visit.pixels("coronal")["coloured"] == 0
    visit.page.fill("#opacity", "100")
    assert visit.pixels("coronal")["coloured"] > 1000


def test_paging_shows_other_volumes_and_goes_round(visit: Visit) -> None:
    sums = [visit.pixels("axial")["sum"]]
    visit.page.click("#next")
    visit.wait_for("synth_00001: volume 2 of 3")
    sums.append(visit.pixels("axial")["sum"])
    visit.page.keyboard.press("n")
    visit.wait_for("synth_00002: volume 3 of 3")
    sums.append(visit.pixels("axial")["sum"])
    assert sums == sorted(sums)
    assert len(set(sums)) == 3
    visit.page.keyboard.press("n")
    visit.wait_for("volume 1 of 3")
    visit.page.keyboard.press("p")
    visit.wait_for("volume 3 of 3")
    visit.page.select_option("#volume", label="synth_00001")
    visit.wait_for("volume 2 of 3")


def test_pixels_are_the_voxels(visit: Visit) -> None:
    visit.page.click("#overlay")
    visit.page.fill("#sagittal-slice", "0")
    corner = "([x, y]) => [...document.getElementById('axial').getContext('2d').getImageData(x, y, 1, 1).data]"
    size = visit.page.evaluate("[document.getElementById('axial').width, document.getElementById('axial').height]")
    front_right = visit.page.evaluate(corner, [size[0] - 3, 3])[0]
    back_left = visit.page.evaluate(corner, [3, size[1] - 3])[0]
    k = int(visit.page.input_value("#axial-slice"))
    image = volumes()[0].image
    assert image[-1, -1, k] > image[0, 0, k]
    assert front_right > back_left + 20


def test_slices_move_by_keyboard_pointer_and_wheel(visit: Visit) -> None:
    slider = visit.page.locator("#axial-slice")
    start = int(slider.input_value())
    slider.focus()
    visit.page.keyboard.press("ArrowRight")
    assert int(slider.input_value()) == start + 1
    assert visit.page.get_attribute("#axial", "aria-label") == f"axial plane of synth_00000, slice {start + 2} of 16"
    visit.page.hover("#axial")
    visit.page.mouse.wheel(0, 100)
    assert int(slider.input_value()) == start
    box = visit.page.locator("#axial").bounding_box()
    visit.page.mouse.click(box["x"] + 2, box["y"] + 2)
    assert visit.page.input_value("#sagittal-slice") == "0"
    assert visit.page.input_value("#coronal-slice") == "23"


def test_the_structure_at_the_cross_is_named(visit: Visit) -> None:
    for i, j, k, name in ((5, 10, 6, "left"), (15, 10, 6, "right </script>"), (0, 0, 0, "background")):
        for plane, place in zip(PLANES, (i, j, k), strict=True):
            visit.page.fill(f"#{plane}-slice", str(place))
        assert visit.page.inner_text("#here") == f"At the cross: {name}"


def test_every_control_is_reached_by_tab(visit: Visit) -> None:
    wanted = {"previous", "volume", "next", "overlay", "opacity", *(f"{plane}-slice" for plane in PLANES)}
    reached = set()
    for _ in range(40):
        visit.page.keyboard.press("Tab")
        reached.add(visit.page.evaluate("document.activeElement.id"))
    assert wanted <= reached


@pytest.mark.parametrize("visit", [{"viewport": {"width": 340, "height": 700}}, {}], indirect=True)
def test_the_page_is_no_wider_than_the_screen(visit: Visit) -> None:
    wide, screen = visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= screen


def test_nothing_is_asked_for_and_nothing_goes_wrong(visit: Visit, file: Path) -> None:
    visit.page.click("#next")
    visit.wait_for("volume 2 of 3")
    assert [url for url in visit.requests if not url.startswith("data:image/png")] == [file.as_uri()]
    assert visit.errors == []


def test_the_browser_enforces_the_policy(visit: Visit) -> None:
    visit.page.evaluate("""() => {
        const script = document.createElement('script');
        script.textContent = 'window.intruder = true';
        document.body.append(script);
        const picture = document.createElement('img');
        picture.src = 'https://example.invalid/x.png';
        document.body.append(picture);
    }""")
    assert visit.page.evaluate("window.intruder") is None
    assert sum("Content Security Policy" in line for line in visit.errors) == 2
    assert visit.page.evaluate("fetch('https://example.invalid/').then(() => true, () => false)") is False


def test_volumes_without_labels_can_be_paged_too(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "bare.html"
    file.write_text(render_report(facts(previews=volumes(3, labelled=False))), encoding="utf-8")
    visited = Visit(browser.new_page())
    visited.page.on("pageerror", lambda error: visited.errors.append(str(error)))
    visited.page.goto(file.as_uri())
    visited.wait_for("volume 1 of 3")
    visited.page.keyboard.press("o")
    visited.page.keyboard.press("n")
    visited.wait_for("volume 2 of 3")
    assert visited.pixels("axial")["coloured"] == 0
    assert visited.pixels("axial")["lit"] > 1000
    assert visited.page.locator("#overlay").count() == 0
    assert visited.errors == []
    visited.page.close()


@pytest.mark.parametrize("visit", [{"java_script_enabled": False}], indirect=True)
def test_without_scripts_the_picture_is_there(visit: Visit) -> None:
    assert not visit.page.is_visible("#viewer")
    assert visit.page.is_visible("img.montage")
    assert visit.page.is_visible("noscript")


def test_on_paper_the_picture_and_every_setting_are_there(visit: Visit) -> None:
    visit.page.emulate_media(media="print")
    visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not visit.page.is_visible("#viewer")
    assert visit.page.is_visible("img.montage")
    assert visit.page.is_visible("text=sampling.sampler")


SCHEMES = [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": {"width": 340, "height": 700}}]


def faults(page: Any) -> list[tuple[str, list[str]]]:
    """Return what axe-core finds against WCAG 2.1 AA and best practice, with everything unfolded."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
    response = axe.run(page, options={"runOnly": rules}).response
    assert len(response["passes"]) > 20
    return [(fault["id"], [node["html"][:90] for node in fault["nodes"]]) for fault in response["violations"]]


@pytest.mark.parametrize("visit", SCHEMES, indirect=True)
def test_axe_finds_no_fault(visit: Visit) -> None:
    assert faults(visit.page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("verdict", ["FAIL", "INCONCLUSIVE"])
def test_axe_finds_no_fault_in_a_refusal(browser: Any, tmp_path: Path, verdict: str, scheme: str) -> None:
    file = tmp_path / "refused.html"
    file.write_text(render_report(facts(audit=AUDIT | {"verdict": verdict})), encoding="utf-8")
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(file.as_uri())
    assert faults(page) == []
    context.close()


def test_axe_would_find_one(visit: Visit) -> None:
    visit.page.evaluate("document.querySelector('img.montage').removeAttribute('alt')")
    assert "image-alt" in {name for name, _ in faults(visit.page)}
