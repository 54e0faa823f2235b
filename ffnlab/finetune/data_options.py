"""The flags of the data of a fine-tuning."""

import dataclasses
from pathlib import Path

from ffnlab import io
from ffnlab.errors import InputError
from ffnlab.options import option


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Data: files, columns and splits."""

    train: str | None = option(None, "File to train on. Required.")
    extra: tuple[str, ...] = option(
        (), "Further files to train on, such as back-translations.", empty=True
    )
    dev: str | None = option(None, "File that chooses the best epoch.")
    test: str | None = option(None, "File to report on.")
    split: tuple[float, ...] = option(
        (),
        "Shares of train, dev and test, which add up to 1, where --train is the only "
        "file.",
        above=0,
        empty=True,
        repeats=True,
    )
    stratify: bool | None = option(
        None,
        "Whether --split divides the texts of each label by themselves, for classify "
        "and pairs. The default is true where they are split.",
    )
    text_column: str = option(
        "text",
        "Column of the text: a name, or a number from 1 if there is no header. Of "
        "CoNLL columns the first, unless a number is given; of CoNLL-U form. Where a "
        "file has none of the default name, names such as tokens or sentence1 are "
        "tried.",
    )
    pair_column: str = option("text2", "Column of the second text, for pairs.")
    label_column: str = option(
        "label",
        "Column of the label, or of the target text for generate. Of CoNLL columns the "
        "last, unless a number is given; of CoNLL-U upos, or another name such as xpos "
        "or misc:NER. In JSON and Parquet, tags are a list. For "
        "several labels of a text also their columns of 0 and 1, with commas.",
    )
    label_names: tuple[str, ...] = option(
        (),
        "Names of labels that are numbers in the files, in order, such as "
        "O,B-PER,I-PER.",
        empty=True,
    )
    marks: tuple[str, ...] = option(
        (),
        "Names of two entity markers, for pairs: with e1,e2 a text holds its pair as "
        "<e1>Ada</e1> and <e2>Bath</e2>.",
        empty=True,
    )
    unseen_labels: str = option(
        "error",
        "What to do with labels that occur in dev or test but not in train: error, or "
        "ignore (they count as missed).",
        known=lambda: ("error", "ignore"),
    )
    max_seq_length: int | None = option(
        None,
        "Maximum number of tokens of a text or window. If not given, 384 for qa and "
        "128 for other tasks.",
        least=8,
    )

    def check_split(self) -> None:
        """Checks the shares, and fills in whether they are those of each label.

        Raises:
          InputError: The shares are malformed, or there is nothing to split.
        """
        if self.split and (self.dev or self.test):
            raise InputError("split: it divides train; leave out dev and test")
        if self.split and (len(self.split) != 3 or abs(sum(self.split) - 1) > 1e-6):
            raise InputError(
                "split: three shares that add up to 1 are needed, such as 0.8,0.1,0.1"
            )
        if not self.split and not self.dev and not self.one_file:
            raise InputError("dev: is needed, or split to take it from train")
        labelled = self.task in ("classify", "pairs") and not self.targets
        if self.stratify and not (self.split and labelled):
            raise InputError(
                "stratify: it needs split, and the task classify or pairs with one "
                "label for each text"
            )
        if self.stratify is None:
            by_label = bool(self.split) and labelled and not self._began_at_random()
            object.__setattr__(self, "stratify", by_label)

    def _began_at_random(self) -> bool:
        """Returns whether the run to resume is from before the flag --stratify."""
        path = Path(self.out or "", "flags")
        return self.resume and path.is_file() and "--stratify" not in io.read(path)

    @property
    def one_file(self) -> bool:
        """Whether the file of train holds all parts, as JSON may."""
        alone = self.task == "classify" and not self.dev and not self.split
        return alone and self.train.endswith(".json")

    def file_of(self, part: str) -> str:
        """Returns the file that holds a part."""
        return getattr(self, part) or self.train
