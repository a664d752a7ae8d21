"""Text files: JSON and YAML read within limits, and every file written whole or not at all."""

from medseg.storage.form import as_formed
from medseg.storage.json_file import read_json, read_table, read_table_bytes
from medseg.storage.whole import as_table, whole_file, write_json, write_text
from medseg.storage.yaml_file import parse_yaml, read_yaml, read_yaml_lines

__all__ = [
    "as_formed",
    "as_table",
    "parse_yaml",
    "read_json",
    "read_table",
    "read_table_bytes",
    "read_yaml",
    "read_yaml_lines",
    "whole_file",
    "write_json",
    "write_text",
]
