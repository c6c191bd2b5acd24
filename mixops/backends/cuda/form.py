"""What a kernel is specialised on, and the text it is compiled from."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from functools import cache
from pathlib import Path

from ...noise import M0, M1, SCALE, TABLE_BITS, W0, W1, table

#: Element types of mix.cu by the names of dtypes.
TYPES = {
    "float64": "double",
    "float32": "float",
    "float16": "f16",
    "bfloat16": "bf16",
    "uint8": "u8",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "uint16": "unsigned short",
    "uint32": "unsigned",
    "uint64": "unsigned long long",
    "bool": "bool",
}
FLOATS = ("float64", "float32", "float16", "bfloat16")
STORES = ("SAME", "PLANES", "PIXELS", "ANY")
#: The text that a kernel is compiled from, and what it includes.
MAIN, HEADERS = "mix.cu", ("chip.h", "noise.h")


@dataclass(frozen=True)
class Form:
    """One specialisation of the kernel; the macros at the head of mix.cu say what each field means.

    Args:
        source, target: dtype names of what is read and written.
        vec: elements of a thread's vector.
        store: one of STORES.
        channels, inside, rank, line, patches, fill, shift, valid, factors, pairs, words, axes, wide: see mix.cu.
    """

    source: str
    target: str
    vec: int
    store: str
    channels: int
    inside: int
    rank: int
    line: int
    patches: int
    fill: int
    shift: int
    valid: int
    factors: int
    pairs: int
    words: int
    axes: int
    wide: int

    @property
    def work(self) -> str:
        """The C type that values are held in between."""
        if self.source in FLOATS or self.target in FLOATS:
            return "double" if "float64" in (self.source, self.target) else "float"
        return "int" if self.source == "uint8" else TYPES[self.source]

    @property
    def real(self) -> str:
        """dtype name of the factors."""
        return "float64" if self.work == "double" else "float32"

    def macros(self) -> str:
        """The lines that stand above mix.cu."""
        lines = {
            "IN": TYPES[self.source],
            "OUT": TYPES[self.target],
            "WORK": self.work,
            "WORK_FACTOR": "double" if self.real == "float64" else "float",
        }
        lines |= {f.name.upper(): str(getattr(self, f.name)) for f in fields(self)[2:]}
        return "".join(f"#define {name} {value}\n" for name, value in lines.items())

    def __str__(self) -> str:
        return "-".join(str(value) for value in astuple(self))


@cache
def sources() -> dict[str, str]:
    """Name and text of every file of the kernel; the constants of the noise are written here."""
    texts = {name: (Path(__file__).parent / name).read_text(encoding="utf-8") for name in (MAIN, *HEADERS)}
    numbers = {"M0": M0, "M1": M1, "W0": W0, "W1": W1, "TABLE_BITS": TABLE_BITS}
    lines = [f"const unsigned {name} = {value}u;" for name, value in numbers.items()]
    lines.append(f"const unsigned NOISE_SCALE = {SCALE.view('uint32')}u;")
    bits = ",".join(f"{value}u" for value in table().view("uint32").tolist())
    lines.append(f"__device__ const unsigned QUANTILES[] = {{{bits}}};\n")
    return texts | {"constants.h": "\n".join(lines)}


def text(form: Form) -> str:
    """What is compiled for a form."""
    return form.macros() + sources()[MAIN]
