"""
A client of the model hub at HF_ENDPOINT: runs the command in its arguments with huggingface_hub, and prints what it returns as
JSON in its last line.
"""

import hashlib
import json
import os
import sys

import huggingface_hub
from huggingface_hub import HfApi, get_safetensors_metadata, hf_hub_download, snapshot_download


def hashes(folder):
    found = {}
    for directory, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(directory, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = hashlib.sha256(file.read()).hexdigest()
    return found


def outcome(action):
    """The names of the classes of what an action raises."""
    try:
        action()
        return []
    except Exception as error:
        return [kind.__name__ for kind in type(error).__mro__]


def snapshot(repo, **options):
    folder = snapshot_download(repo, **options)
    return {"commit": os.path.basename(folder), "files": hashes(folder)}


def download(repo, path, **options):
    file = hf_hub_download(repo, path, **options)
    with open(file, "rb") as content:
        sha256 = hashlib.sha256(content.read()).hexdigest()
    return {"blob": os.path.basename(os.path.realpath(file)), "sha256": sha256}


def info(repo):
    api = HfApi()
    model = api.model_info(repo, files_metadata=True)
    tree = api.list_repo_tree(repo, recursive=True, expand=True)
    return {
        "sha": model.sha,
        "siblings": {file.rfilename: [file.size, file.lfs.sha256] for file in model.siblings},
        "tree": {entry.path: getattr(entry, "size", None) for entry in tree},
        "paths": [entry.path for entry in api.get_paths_info(repo, ["config.json", "onnx", "missing"])],
        "exists": [api.file_exists(repo, "config.json"), api.file_exists(repo, "missing"), api.repo_exists("acme/none")],
    }


def tree(repo):
    return [entry.path for entry in HfApi().list_repo_tree(repo, recursive=True)]


def tensors(repo):
    metadata = get_safetensors_metadata(repo)
    return {
        name: [tensor.dtype, tensor.shape] for file in metadata.files_metadata.values() for name, tensor in file.tensors.items()
    }


def failures(repo):
    return {
        "repository": outcome(lambda: HfApi().model_info("acme/none")),
        "revision": outcome(lambda: snapshot_download(repo, revision="v1.0")),
        "entry": outcome(lambda: hf_hub_download(repo, "missing.bin")),
    }


command, *arguments = sys.argv[1:]
if command == "version":
    print(json.dumps(huggingface_hub.__version__))
else:
    run = {f.__name__: f for f in (snapshot, download, info, tree, tensors, failures)}[command]
    print(json.dumps(run(*arguments)))
