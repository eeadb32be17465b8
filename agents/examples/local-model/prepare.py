"""Rewrites a GGUF model so that all its weights that are quantised are Q8_0, which every server can run.

    python prepare.py FROM.gguf TO.gguf

Metadata, the tokenizer and what isn't quantised (norms) go over as they are. TO is there whole or not at all.
"""

import os
import sys

import gguf
from gguf.quants import dequantize, quantize

Q8_0 = gguf.GGMLQuantizationType.Q8_0
PLAIN = {gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.BF16}
# The writer makes these itself.
OWN_FIELDS = {"general.architecture", "general.file_type", "general.quantization_version"}


def copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for name, field in reader.fields.items():
        # What begins with GGUF. is the file's header, not metadata.
        if name.startswith("GGUF.") or name in OWN_FIELDS:
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], inner)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def add_tensor(writer: gguf.GGUFWriter, tensor: gguf.ReaderTensor) -> str:
    """Adds a tensor; says what was done with it."""
    kind = tensor.tensor_type
    if kind in PLAIN or kind == Q8_0:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=None if kind in PLAIN else kind)
        return f"{kind.name} as it was"
    anew = quantize(dequantize(tensor.data, kind), Q8_0)
    writer.add_tensor(tensor.name, anew, raw_dtype=Q8_0)
    return f"{kind.name} to Q8_0"


def rewrite(source: str, target: str) -> None:
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    part = target + ".part"
    writer = gguf.GGUFWriter(part, architecture)
    copy_metadata(reader, writer)
    done: dict[str, int] = {}
    for tensor in reader.tensors:
        what = add_tensor(writer, tensor)
        done[what] = done.get(what, 0) + 1
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, target)
    for what, count in sorted(done.items()):
        print(f"{count} tensors: {what}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: prepare.py FROM.gguf TO.gguf")
    rewrite(*sys.argv[1:])
