import re
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix
from sklearn.utils import Bunch

from classic_cls import IntervalsDisplay, benchmark, load_digits
from classic_cls.benchmark import BenchmarkResult, Predictions, intervals, write_predictions
from classic_cls.benchmark._report_blocks import part
from classic_cls.benchmark._report_figures import page_style, picture
from classic_cls.cli import main

_VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that elements nest, and collects ids, texts and what would be fetched."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.texts, self.fetched, self.labels = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.open += [tag] * (tag not in _VOID)
        self.ids += [attrs.get("id")] * ("id" in attrs)
        self.labels += [attrs.get("aria-label")] * (tag == "svg")
        for key in ("src", "href", "xlink:href"):
            if key in attrs and not attrs[key].startswith(("#", "data:")):
                self.fetched.append(attrs[key])

    def handle_endtag(self, tag):
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


def guess(dataset, n_wrong, seed=0):
    """Return predictions of which `n_wrong` are another class."""
    target, k = dataset.target[dataset.test], len(dataset.target_names)
    labels, wrong = target.copy(), np.random.default_rng(seed).permutation(len(target))[:n_wrong]
    labels[wrong] = (labels[wrong] + 1) % k
    scores = np.full((len(target), k), 0.1 / (k - 1))
    scores[np.arange(len(target)), labels] = 0.9
    return Predictions(labels, scores, np.arange(k))


@pytest.fixture(scope="module")
def digits():
    """A tenth of the digits, with a training image among the test images."""
    whole = load_digits()
    images = whole.images[:180].copy()
    images[170] = images[3]
    parts = {"train": np.arange(120), "test": np.arange(120, 180)}
    return Bunch(**whole | {"images": images, "target": whole.target[:180], "name": "<digits>"} | parts)


@pytest.fixture(scope="module")
def result(digits):
    against = {"cnn": guess(digits, 2), "<net> & co": guess(digits, 20)}
    return benchmark.run(["hog-svm"], digits, against=against, corrupted=True)


@pytest.fixture(scope="module")
def page(result, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    result.report(path, command="classic-cls benchmark <digits>")
    return path.read_text(encoding="utf-8")


class TestRun:
    def test_models_from_elsewhere_have_scores_and_no_costs(self, result):
        row = next(record for record in result.records if record["pipeline"] == "cnn")
        assert row["accuracy"] == pytest.approx(58 / 60)
        assert row["fit_seconds"] is row["seed"] is row["error"] is None

    def test_evidence_is_what_was_said(self, result, digits):
        [evidence] = result.evidence
        assert evidence.outside == ("cnn", "<net> & co")
        assert set(evidence.predictions) == {"cnn", "<net> & co", "hog-svm", "pixels-svm", "majority"}
        for name, said in evidence.predictions.items():
            row = next(record for record in result.records if record["pipeline"] == name)
            assert np.mean(said.labels == digits.target[digits.test]) == pytest.approx(row["accuracy"])
        assert evidence.ranked[-1] == "majority"
        pairs = [{c.first, c.second} for c in evidence.findings]
        assert pairs == [{"cnn", "hog-svm"}, {"<net> & co", "hog-svm"}]

    def test_without_outsiders_the_best_is_compared_with_the_next(self, digits):
        [evidence] = benchmark.run(["hog-svm"], digits).evidence
        assert [{c.first, c.second} for c in evidence.findings] == [{"hog-svm", "pixels-svm"}]

    def test_corrupted_images_are_scored(self, result):
        summary = result.evidence[0].robustness.summary
        assert set(summary.index) == {"hog-svm", "pixels-svm", "majority"}
        assert summary.loc["hog-svm", "corrupted"] < summary.loc["hog-svm", "clean"]

    @pytest.mark.parametrize("name", ["hog-svm", "majority"])
    def test_name_that_is_taken(self, digits, name):
        with pytest.raises(ValueError, match=f"'{name}' is also the name of a pipeline"):
            benchmark.run(["hog-svm"], digits, against={name: guess(digits, 2)})

    def test_predictions_of_another_test(self, digits):
        with pytest.raises(ValueError, match="3 predictions for 60 test images"):
            benchmark.run(["hog-svm"], digits, against={"cnn": Predictions([1, 2, 3])})

    def test_several_labels_of_an_image(self, digits):
        several = Bunch(**digits | {"target": np.eye(10, dtype=int)[digits.target]})
        with pytest.raises(ValueError, match=r"target has shape \(180, 10\); expected one label for each image"):
            benchmark.run(["hog-svm"], several, against={"cnn": guess(digits, 2)})

    @pytest.mark.parametrize("name", ["cnn.npz", "cnn.csv", "cnn.onnx"])
    def test_missing_file(self, digits, tmp_path, name):
        with pytest.raises(FileNotFoundError, match=name):
            benchmark.run(["hog-svm"], digits, against={"cnn": tmp_path / name})


@pytest.fixture(scope="module")
def blocks(result):
    """Return the sentences, tables and figures of the page by their headings."""
    return {block.heading: block for block in part(result.evidence[0], result.records).blocks}


def table(block):
    """Return a dict of heading to cell for each row."""
    return [dict(zip(block.rows.columns, cells, strict=True)) for cells in block.rows.cells]


def right(result, name):
    evidence = result.evidence[0]
    return evidence.predictions[name].labels == evidence.target


class TestTables:
    def test_scores_and_costs(self, blocks, result):
        records = {record["pipeline"]: record for record in result.records}
        rows = table(blocks["Scores and costs"])
        assert [row["model"].text for row in rows] == result.evidence[0].ranked
        for row in rows:
            record = records[row["model"].text]
            assert row["accuracy"].text == f"{right(result, row['model'].text).mean():.3f}"
            assert row["accuracy"].interval == f"{record['accuracy_low']:.3f} - {record['accuracy_high']:.3f}"
            assert row["balanced accuracy"].text == f"{record['balanced_accuracy']:.3f}"
            if row["model"].text in result.evidence[0].outside:
                assert {row[cost].text for cost in ("fit, s", "fit, MB", "one image, ms", "images/s")} == {"-"}
            else:
                assert float(row["fit, s"].key) == pytest.approx(record["fit_seconds"], rel=1e-5)
                assert row["fit, MB"].text == f"{record['fit_peak_bytes'] / 1e6:,.0f}"
                assert row["one image, ms"].text == f"{record['latency_ms']:,.2f}"
                assert row["model, MB"].text == f"{record['model_bytes'] / 1e6:,.2f}"

    def test_differences(self, blocks, result):
        rows = table(blocks["Difference of each pair"])
        assert len(rows) == 10
        sizes = [abs(float(row["points"].key)) for row in rows]
        assert sizes == sorted(sizes, reverse=True)
        for row in rows:
            first, second = (right(result, name) for name in row["pair"].text.split(" - "))
            assert row["points"].text == f"{100 * (first.mean() - second.mean()):+.1f}"
            low, high = map(float, row["points"].interval.split(" to "))
            assert low <= float(row["points"].text) <= high
            assert row["only first right"].text == str(np.sum(first & ~second))
            assert row["only second right"].text == str(np.sum(second & ~first))
            assert float(row["p (McNemar)"].key) <= float(row["p (Holm)"].key) <= 1

    def test_confusions_of_the_best(self, blocks, result):
        evidence = result.evidence[0]
        best = evidence.ranked[0]
        counts = confusion_matrix(evidence.target, evidence.predictions[best].labels, labels=np.arange(10))
        np.fill_diagonal(counts, 0)
        rows = table(blocks[f"What {best} confuses"])
        assert [int(row["images"].text) for row in rows] == sorted(counts[counts > 0].tolist(), reverse=True)[:10]
        for row in rows:
            true, said = int(row["class"].text), int(row["taken for"].text)
            assert counts[true, said] == int(row["images"].text)
            assert row["share"].text == f"{counts[true, said] / np.sum(evidence.target == true):.3f}"

    def test_class_by_class(self, blocks, result):
        evidence = result.evidence[0]
        rows = table(blocks["Class by class"])
        assert [row["class"].text for row in rows] == sorted(str(k) for k in range(10) for _ in range(4))
        for row in rows:
            of_class = evidence.target == int(row["class"].text)
            found = right(result, row["model"].text)[of_class]
            assert (row["images"].text, row["recall"].text) == (str(of_class.sum()), f"{found.mean():.3f}")
            low, high = map(float, row["recall"].interval.split(" - "))
            assert low <= found.mean() <= high

    def test_corrupted(self, blocks, result):
        summary = result.evidence[0].robustness.summary
        rows = table(blocks["In bad light, blurred, turned"])
        assert [row["model"].text for row in rows] == [n for n in result.evidence[0].ranked if n in summary.index]
        for row in rows:
            kinds = [float(cell.key) for heading, cell in row.items() if heading not in ("model", "clean", "corrupted")]
            assert float(row["corrupted"].key) == pytest.approx(np.mean(kinds), abs=1e-5)
            assert row["corrupted"].text == f"{summary.loc[row['model'].text, 'corrupted']:.3f}"

    def test_all_of_it_is_on_the_page(self, blocks, page):
        texts = Page(page).texts
        for block in blocks.values():
            assert block.heading in texts
            assert all(cell.text in texts for cells in (block.rows.cells if block.rows else []) for cell in cells)


class TestPage:
    def test_is_whole_and_needs_nothing(self, page):
        read = Page(page)
        assert read.fetched == []
        assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttp", page)
        assert len(page) < 5e6

    def test_ids_differ_and_are_found(self, page):
        ids = Page(page).ids
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', page)) <= set(ids)

    def test_every_figure_is_described(self, page):
        labels = Page(page).labels
        assert len(labels) >= 7
        assert all(labels)

    def test_names_are_text_not_markup(self, page):
        assert "<net>" not in page
        assert "<digits>" not in page
        assert "<net> & co" in Page(page).texts

    def test_says_what_matters(self, page, result):
        text = " ".join(Page(page).texts)
        assert "The surest mistakes of" in text
        leaked = result.evidence[0].leaks.leaked
        assert 170 in leaked
        assert f"Test images that have a copy among the training images, see below: {len(leaked)}." in text
        assert "classic-cls benchmark <digits>" in text
        assert result.evidence[0].fingerprint in text
        assert "points ahead of" in text or "points behind" in text
        assert "nan" not in re.findall(r"\w+", text.lower())

    def test_colours_are_the_pages(self, page):
        assert "#010203" not in page
        assert "currentColor" in page

    def test_nothing_is_left_of_a_page_that_failed(self, result, tmp_path):
        (tmp_path / "page.html").mkdir()
        with pytest.raises(OSError, match=r"page\.html"):
            result.report(tmp_path / "page.html")
        assert [path.name for path in tmp_path.iterdir()] == ["page.html"]

    def test_no_evidence(self, tmp_path):
        with pytest.raises(ValueError, match="no predictions"):
            BenchmarkResult([]).report(tmp_path / "page.html")


def test_a_display_keeps_its_own_colours_outside_the_page():
    import matplotlib as mpl

    table = intervals([0, 1] * 20, {"guess": Predictions([0] * 40), "svm": Predictions([0, 1] * 20)})
    IntervalsDisplay.from_table(table).plot()  # lets matplotlib choose its backend
    before = dict(mpl.rcParams)
    with page_style():
        drawn = picture(IntervalsDisplay.from_table(table), 'a "caption" & more')
    assert dict(mpl.rcParams) == before
    assert 'aria-label="a &#34;caption&#34; &amp; more"' in drawn.svg
    assert ">svm<" in drawn.svg


class TestIntervalsDisplay:
    table = intervals([0, 1] * 20, {"guess": Predictions([0] * 40), "svm": Predictions([0, 1] * 20)})

    def test_best_on_top(self):
        display = IntervalsDisplay.from_table(self.table, "macro_f1").plot()
        assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["svm", "guess"]
        assert display.ax_.yaxis_inverted()
        assert display.ax_.get_xlabel() == "macro f1"

    def test_unknown_metric(self):
        with pytest.raises(
            ValueError, match="metric='log_loss'; the table has numbers for accuracy, balanced_accuracy"
        ):
            IntervalsDisplay.from_table(self.table, "log_loss")


class TestCommand:
    def test_report_and_against(self, tmp_path, capsys):
        digits = load_digits()
        write_predictions(tmp_path / "cnn.npz", guess(digits, 20), digits)
        command = ["benchmark", "digits", "--pipelines", "hog-svm", "--against", f"cnn={tmp_path / 'cnn.npz'}"]
        assert main([*command, "--report", str(tmp_path / "out.html")]) == 0
        out = capsys.readouterr().out
        assert "digits: cnn is" in out
        assert "of 450 test images" in out
        assert "cnn" in Page((tmp_path / "out.html").read_text("utf-8")).texts

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["digits", "--against", "cnn"], "'cnn'; expected NAME=FILE"),
            (["digits", "--against", "cnn=missing.npz"], "missing.npz"),
            (["digits", "faces", "--against", "cnn=a.npz"], "name one DATA"),
            (["digits", "--report", "missing/out.html"], "no folder 'missing'"),
        ],
    )
    def test_what_the_user_can_mend(self, arguments, message, capsys):
        try:
            status = main(["benchmark", *arguments, "--pipelines", "hog-svm"])
        except SystemExit as error:
            status = error.code
        assert status == 2
        assert message in capsys.readouterr().err
