"""The report of small runs that are written here, without any training."""

import base64
import csv
import gzip
import io
import json
import re
from html.parser import HTMLParser

import nibabel
import numpy as np
import pytest
import yaml
from PIL import Image

from medseg.cli import main
from medseg.data import read_datalist
from medseg.errors import ConfigError, DataError
from medseg.metrics import ScoreDefinition, ScoreFacts, Scores, case_scores
from medseg.reports import write_report
from medseg.reports.drawing import save_figure
from medseg.transforms.save import write_label_map

SHAPE = (20, 24, 16)
METRICS = ("hd95", "surface_dice_at_2")
AFFINE = np.array([[0, 1.5, 0, -10], [-1.5, 0, 0, 8], [0, 0, 3.0, 1], [0, 0, 0, 1]])  # axes permuted and flipped
EVIL = 'ev<script>alert("x")</script>&il'


def ball(center, radius, shape=SHAPE):
    grid = np.indices(shape)
    return sum((g - c) ** 2 for g, c in zip(grid, center, strict=True)) < radius**2


def write_run(folder, *, cases=4, names=("liver", "spleen"), photo=False, validated=True, missing=()):
    """A run folder with data beside it; prediction k is the reference moved by k voxels."""
    data, run = folder / "data", folder / "run"
    for path in (data, run / "configs"):
        path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    shape = (40, 56) if photo else SHAPE
    entries, predictions = [], []
    for number in range(cases):
        label = np.zeros(shape, np.uint8)
        for index in range(len(names)):
            center = [n * (0.3 + 0.4 * index / max(1, len(names) - 1)) for n in shape]
            label[ball(center, 4, shape)] = index + 1
        predictions.append(np.roll(label, number, axis=0))
        image = label * 50.0 + rng.normal(0, 5, shape)
        suffix = ".png" if photo else ".nii.gz"
        entry = {"image": f"case{number}{suffix}", "label": f"case{number}_seg{suffix}", "fold": int(number > 0)}
        if photo:
            Image.fromarray(np.stack([np.clip(image, 0, 255)] * 3, -1).astype(np.uint8)).save(data / entry["image"])
            Image.fromarray(label).save(data / entry["label"])
        else:
            nibabel.save(nibabel.Nifti1Image(image.astype(np.int16), AFFINE), data / entry["image"])
            nibabel.save(nibabel.Nifti1Image(label, AFFINE), data / entry["label"])
        entries.append(entry)
    table = {
        "name": "toy & co",
        "modality": {"0": "RGB" if photo else "CT"},
        "labels": {"0": "background", **{str(i): name for i, name in enumerate(names, 1)}},
        "training": entries,
        "known_overlaps": ["case0"],
    }
    (run / "configs" / "datalist.json").write_text(json.dumps(table), encoding="utf-8")
    datalist_space = {"labels": {"background": 0, **{name: i for i, name in enumerate(names, 1)}}}
    config = {
        "dataset_dir": str(data),
        "roi_size": [16] * len(shape),
        "epochs": 2,
        "labels": datalist_space,
        "preprocess": {
            "roi_size": "@roi_size",
            "spacing": None if photo else [1.5, 1.5, 3.0],
            "normalization": [{"kind": "fixed", "lower": -20, "upper": 120, "mean": 40, "std": 30}],
        },
        "network_def": {"_target_": "monai.networks.nets.UNet", "strides": [2, 2]},
    }
    (run / "configs" / "train.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    (run / "run.json").write_text(json.dumps({"status": "finished", "seed": 7, "training_seconds": 61.0}))
    with (run / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["epoch", "loss", "learning_rate", "mean_dice"], [1, 1.2, 0.01, ""], [2, 0.9, 0.005, 0.4]]
        )
    (run / "losses.csv").write_text("epoch,iteration,loss\n1,1,1.3\n1,2,1.1\n2,3,0.9\n")
    rows = "".join(f'2,"{name.replace(chr(34), chr(34) * 2)}",0.4\n' for name in names)
    (run / "validation_dice.csv").write_text(f"epoch,label,dice\n{rows}")
    (run / "log.txt").write_text("2026-01-01 10:00:00,000 WARNING case3: odd header\n" * 2, encoding="utf-8")
    if not validated:
        return run
    datalist = read_datalist(run / "configs" / "datalist.json", data)
    scores = {}
    for case, prediction in zip(datalist.sections["training"], predictions, strict=True):
        path = data / f"{case.id}_seg{'.png' if photo else '.nii.gz'}"
        label = np.asarray(Image.open(path)) if photo else np.asarray(nibabel.load(path).dataobj)
        if case.id in missing:
            prediction = prediction * 0
        scores[case.id] = case_scores(prediction, label, datalist.label_space, [1.0] * label.ndim, metrics=METRICS)
        name = f"{case.id}{'.png' if photo else '.nii.gz'}"
        write_label_map(prediction, {"original_affine": AFFINE}, run / "predictions" / name)
    definition = ScoreDefinition(space="source", unit="px" if photo else "mm", cleanup={})
    Scores.of(scores, definition, ScoreFacts(section=None, fold=0)).write(run)
    return run


def pictures(html):
    encoded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [base64.b64decode(item) for item in encoded]


class Tags(HTMLParser):
    """Collects tags, and fails on one that is closed without being open."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(autouse=True, scope="module")
def _no_files_of_figures():
    """They take most of the time; one test has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medseg.reports.report.save_figure", lambda figure, path: None)
        yield


@pytest.fixture(scope="module")
def report(tmp_path_factory, _no_files_of_figures):
    run = write_run(tmp_path_factory.mktemp("volume"), names=("liver", EVIL), missing=("case3",))
    return write_report(run).read_text(encoding="utf-8")


def test_well_formed_and_self_contained(report):
    tags = Tags()
    tags.feed(report)
    assert not tags.open
    assert not {tag for tag, _ in tags.seen} & {"script", "link", "iframe", "object"}
    for _, attributes in tags.seen:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert "url(http" not in report and "@import" not in report


def test_names_are_escaped(report):
    assert "<script>" not in report
    assert "ev&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;&amp;il" in report
    assert "UNet on toy &amp; co" in report


def test_holds_figures_scores_and_facts(report):
    assert report.count("<svg ") == 5  # four curves, scores
    assert len(pictures(report)) == 3  # worst, median, best
    assert "95 % interval" in report and "surface Dice at 2 mm" in report and "over 4 cases" in report
    assert "clip to -20 … 120" in report and "16 × 16 × 16 voxels" in report and "1.5 × 1.5 × 3 mm" in report


def test_warnings(report):
    shown = report[report.index('<ul class="warnings">') : report.index("</ul>")]
    assert "Entirely background: the predictions of 1 of 4 cases (case3)" in shown
    assert "Known overlaps" in shown and "case0" in shown
    assert shown.count("case3: odd header") == 1


def test_numbers_are_those_of_the_metrics(tmp_path):
    run = write_run(tmp_path, cases=3)
    metrics = json.loads((run / "metrics.json").read_text())
    html = write_report(run).read_text(encoding="utf-8")
    assert f"<b>{metrics['mean_dice']:.3f}</b>" in html
    for label, row in metrics["labels"].items():
        line = next(row for row in re.findall("<tr>(.*?)</tr>", html) if f"</i>{label}</td>" in row)
        assert f"<td>{row['dice']['mean']:.3f}</td>" in line and f"<td>{row['hd95']['mean']:.2f}</td>" in line
    order = [html.index(f"<td>case{number}</td>") for number in (2, 1, 0)]  # worst first: moved furthest
    assert order == sorted(order)


def test_pictures_are_small_and_show_the_labels(tmp_path):
    run = write_run(tmp_path, cases=2)
    shown = pictures(write_report(run).read_text(encoding="utf-8"))
    assert shown
    for data in shown:
        assert len(data) <= 300_000
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        quarter = len(pixels) // 4
        spread = [np.ptp(part, axis=-1).max() for part in (pixels[:quarter, 200:-200], pixels[quarter:])]
        assert spread[1] > 80  # colours of labels in the rows of reference and prediction
        assert spread[0] < spread[1]


def test_figures_are_files_too(tmp_path, monkeypatch):
    monkeypatch.setattr("medseg.reports.report.save_figure", save_figure)
    run = write_run(tmp_path, cases=1)
    (run / "figures").mkdir()
    (run / "figures" / "case_gone.png").touch()
    write_report(run)
    names = {path.name for path in (run / "figures").iterdir()}
    stems = ("curve_loss", "curve_mean_dice", "curve_learning_rate", "curve_labels", "scores", "case_case0")
    assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg", "pdf")}
    drawn = (run / "figures" / "case_case0.svg").read_text(encoding="utf-8")
    for words in ("liver", "false positive", "reference"):
        assert words in drawn


def test_the_viewer_holds_the_volumes_of_the_cases(tmp_path, monkeypatch):
    monkeypatch.setattr("medseg.reports.viewer._MOST_VOXELS", 1000)  # every second voxel
    run = write_run(tmp_path, cases=2)
    write_report(run, viewer=True)
    html = (run / "viewer.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!#|data:)', html.partition("<script>")[0])
    cases = json.loads(re.search(r"const cases = (.*);", html)[1])
    assert [case["title"][:5] for case in cases] == ["case1", "case0"]
    for case in cases:
        volumes = {
            key: nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(case[key])))
            for key in ("image", "reference", "prediction")
        }
        for volume in volumes.values():
            assert nibabel.aff2axcodes(volume.affine) == ("L", "P", "I")
            assert volume.shape == (12, 10, 8) and volume.header.get_zooms() == pytest.approx((3, 3, 6))
        assert set(np.unique(volumes["reference"].dataobj)) == {0, 1, 2}
        assert volumes["image"].get_data_dtype() == np.uint8 and "every 2. voxel" in case["note"]
        assert all(0 < share < 1 for share in case["middle"])
    assert json.loads(re.search(r"const colormap = (.*);", html)[1])["labels"] == ["background", "liver", "spleen"]
    with pytest.raises(ConfigError, match="--viewer shows volumes"):
        write_report(write_run(tmp_path / "photo", cases=1, photo=True), viewer=True)


def test_errors_are_told_apart():
    from medseg.reports.overlays import _errors

    predicted, reference = np.array([0, 1, 0, 2, 1, 1]), np.array([0, 0, 1, 1, 1, -1])
    assert _errors(predicted, reference).tolist() == [0, 1, 2, 3, 0, 0]


@pytest.mark.parametrize(
    ("kind", "value", "window"),
    [
        ("ct", 60.0, (-160, 240)),
        ("ct", -800.0, (-1350, 150)),
        ("ct", 700.0, (-450, 1050)),
        ("pet", 9.0, (9.0, 0.0)),
        ("mr", 9.0, (9.0, 9.000001)),
    ],
)
def test_window_by_modality(kind, value, window):
    from medseg.data.case_view import _window

    image = np.zeros((4, 4))
    image[1:3, 1:3] = value
    assert _window(image, kind, {}, image != 0)[0] == pytest.approx(window)


def test_directions_follow_the_affine(tmp_path):
    """A mark at the patient's right, front and top comes to the left and upper edge, however the grid is stored."""
    from medseg.data.case import Case
    from medseg.data.case_view import load_view
    from medseg.labels import LabelSpace

    space = LabelSpace.from_table({"labels": {"background": 0, "mark": 1}})
    world = np.array([12.0, 20.0, 30.0, 1.0])  # RAS: right, front, top of the volume's centre
    for order in ([0, 1, 2], [2, 0, 1]):
        for signs in ((1, 1, 1), (-1, -1, 1), (-1, 1, -1)):
            axes = (np.eye(3) * (2.0, 2.0, 3.0) * signs)[:, order]
            affine = np.eye(4)
            shape = np.array([20, 30, 24])[order]
            affine[:3, :3], affine[:3, 3] = axes, -axes @ ((shape - 1) / 2)
            volume = np.zeros(shape, np.uint8)
            volume[tuple(np.round(np.linalg.solve(affine, world)[:3]).astype(int))] = 1
            image = nibabel.Nifti1Image(volume, affine)
            path = tmp_path / "mark.nii.gz"
            nibabel.save(image, path)
            view = load_view(Case("mark", (str(path),), label=str(path)), path, space)
            found = np.argwhere(view.reference == 1)[0]
            assert view.reference.shape == (20, 30, 24) and view.spacing == pytest.approx((2, 2, 3))
            assert (found < np.array(view.reference.shape) / 2).all()


def test_photographs_have_pixels(tmp_path):
    run = write_run(tmp_path, cases=2, photo=True)
    html = write_report(run).read_text(encoding="utf-8")
    assert len(pictures(html)) == 2
    assert "HD95, px" in html and "surface Dice at 2 px" in html
    pooled = json.loads((run / "metrics.json").read_text())["pooled"]["liver"]
    assert "pooled IoU" in html and f"{pooled['dice']:.3f}" in html and 0 < pooled["iou"] < pooled["dice"] < 1


def test_many_labels(tmp_path):
    names = tuple(f"organ {i}" for i in range(20))
    html = write_report(write_run(tmp_path, cases=1, names=names)).read_text(encoding="utf-8")
    legend = html[html.index('<ul class="legend">') :]
    colors = re.findall(r"background:(#\w+)", legend[: legend.index("</ul>")])
    assert len(colors) == 20 + 3 == len(set(colors))  # three kinds of errors


def test_without_validation(tmp_path):
    run = write_run(tmp_path, validated=False)
    html = write_report(run).read_text(encoding="utf-8")
    assert "`medseg validate` has not been run" in html and "did not record" not in html
    for name in ("losses.csv", "validation_dice.csv"):  # of a run of an earlier version
        (run / name).unlink()
    html = write_report(run).read_text(encoding="utf-8")
    assert "did not record the loss of each iteration and the Dice of each label." in html
    assert html.count("<svg ") == 3 and "The run</h2>" in html and not pictures(html)


def test_without_images(tmp_path):
    """Scores and curves stay when the data are gone; the report says what is missing."""
    run = write_run(tmp_path, cases=2)
    (tmp_path / "data").rename(tmp_path / "moved")
    html = write_report(run).read_text(encoding="utf-8")
    assert "No overlays: Data folder" in html and html.count("<svg ") == 5 and not pictures(html)
    assert len(pictures(write_report(run, data_dir=tmp_path / "moved").read_text(encoding="utf-8"))) == 2
    (run / "predictions" / "case1.nii.gz").write_bytes(b"\x1f\x8bbroken")
    html = write_report(run, data_dir=tmp_path / "moved").read_text(encoding="utf-8")
    assert "No overlay of case1" in html and len(pictures(html)) == 1


def test_errors(tmp_path, capsys):
    with pytest.raises(ConfigError, match="is not a run"):
        write_report(tmp_path)
    assert main(["report", "--run", str(tmp_path)]) == 2
    run = write_run(tmp_path / "x", validated=False)
    assert main(["report", "--run", str(run)]) == 0
    assert str(run / "report.html") in capsys.readouterr().out
    (run / "metrics.json").write_text("{")
    with pytest.raises(DataError, match="metrics.json is damaged"):
        write_report(run)
