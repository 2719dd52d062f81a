"""The options of an import: what a file of completions does not say itself."""

from typing import Annotated, Literal

from headway.choices import Option, Options
from headway.text.tags import ThinkTags


class ImportOptions(Options, frozen=True):
    """How a file of completions is read; the columns are those of JSONL and Parquet, by default found by their names.

    `untagged`: auto is thinking that was cut off, if another completion of the file closes thinking that it did not
    open; otherwise an answer.
    """

    author: Annotated[str | None, Option("Model that wrote the completions, if the file does not name it.")] = None
    budget: Annotated[
        int | None,
        Option("Maximum thinking tokens of a trace; longer ones are cut. Default: the longest trace.", least=1),
    ] = None
    prompt_column: Annotated[str | None, Option("Column of the prompt or messages.")] = None
    completion_column: Annotated[str | None, Option("Column of the completion or completions.")] = None
    answer_column: Annotated[str | None, Option("Column of the reference answer.")] = None
    id_column: Annotated[str | None, Option("Column that identifies the problem.")] = None
    reasoning_column: Annotated[str | None, Option("Column of the thinking, if separate.")] = None
    author_think_open: Annotated[str, Option("Text that opens the thinking in the file.")] = "<think>"
    author_think_close: Annotated[str, Option("Text that closes the thinking in the file.")] = "</think>"
    untagged: Annotated[Literal["auto", "answer", "thought"], Option("What a completion without think tags is.")] = (
        "auto"
    )

    @property
    def author_tags(self) -> ThinkTags:
        """The think tags of the author."""
        return ThinkTags(self.author_think_open, self.author_think_close)

    def column(self, kind: str) -> str | None:
        """The column that was named for a kind of content, if any."""
        return getattr(self, f"{kind}_column", None)
