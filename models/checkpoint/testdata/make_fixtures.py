"""Makes the .pt files of this folder with PyTorch itself (2.15; any since 2.3 will do).

    python3 make_fixtures.py

They are committed: the tests need no Python. Every tensor named "ramp" holds i/4 - 1 for i = 0, 1, 2, ... in C order.
"""
import argparse
import collections
import zipfile

import torch
from torch import nn


def ramp(*shape, dtype=torch.float32):
    n = 1
    for d in shape:
        n *= d
    return (torch.arange(n, dtype=torch.float64) / 4 - 1).to(dtype).reshape(shape)


def dtypes():
    counts = torch.tensor([0, 1, -2, 100])
    return {
        "float64": ramp(2, 3, dtype=torch.float64), "float32": ramp(2, 3), "float16": ramp(2, 3, dtype=torch.float16),
        "bfloat16": ramp(2, 3, dtype=torch.bfloat16), "int64": counts, "int32": counts.int(), "int16": counts.short(),
        "int8": counts.char(), "uint8": torch.tensor([0, 1, 254, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]), "scalar": torch.tensor(2.5), "empty": torch.empty(0, 3),
    }


def views():
    base = ramp(4, 6)
    return {
        "base": base, "transposed": base.t(), "column": base[:, 2], "rows": base[1:3], "stepped": base[::2, 1::2],
        "expanded": ramp(3)[:, None].expand(3, 4), "permuted": ramp(2, 3, 4).permute(2, 0, 1),
        "channels_last": ramp(2, 3, 2, 2).to(memory_format=torch.channels_last), "one": base[1:2, 3:4],
    }


def small():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(ramp(*p.shape))
    return net


def trained(net):
    opt = torch.optim.AdamW(net.parameters())
    net(torch.ones(4, 3)).sum().backward()
    opt.step()
    return opt


def dit():
    """The layout of facebookresearch/DiT train.py."""
    net = small()
    ema = {k: v + 100 if v.is_floating_point() else v for k, v in small().state_dict().items()}
    args = argparse.Namespace(model="DiT-XL/2", image_size=256, results_dir="results", lr=1e-4)
    return {"model": net.state_dict(), "ema": collections.OrderedDict(ema), "opt": trained(net).state_dict(), "args": args}


def lightning():
    """The layout of pytorch_lightning, as Stable Diffusion's .ckpt has it."""
    net = small()
    return {
        "epoch": 3, "global_step": 470000, "pytorch-lightning_version": "1.4.2", "state_dict": net.state_dict(),
        "callbacks": {argparse.ArgumentParser: {"best": torch.tensor(1.0), "seen": {1, 2}}},
        "optimizer_states": [trained(net).state_dict()], "lr_schedulers": [], "hyper": collections.defaultdict(list, a=[1]),
    }


def odd(value):
    return {"good": ramp(2), "odd": value}


def save(name, obj, **kw):
    torch.save(obj, name, **kw)


def repack(name, source, method=zipfile.ZIP_STORED, zip64=False, **replace):
    """Writes source anew, with entries replaced."""
    with zipfile.ZipFile(source) as src, zipfile.ZipFile(name, "w", method) as dst:
        for e in src.infolist():
            data = src.read(e)
            for k, v in replace.items():
                if e.filename.endswith("/" + k):
                    data = v
            info = zipfile.ZipInfo(e.filename)
            info.compress_type = method
            with dst.open(info, "w", force_zip64=zip64) as f:
                f.write(data)


if __name__ == "__main__":
    legacy = {"_use_new_zipfile_serialization": False}
    for p in (2, 4, 5):
        save(f"dtypes-p{p}.pt", dtypes(), pickle_protocol=p)
    save("dtypes-legacy.pt", dtypes(), **legacy)
    save("dtypes-legacy-p4.pt", dtypes(), pickle_protocol=4, **legacy)
    save("views.pt", views())
    save("views-legacy.pt", views(), **legacy)
    repack("views-deflated.pt", "views.pt", zipfile.ZIP_DEFLATED)
    repack("dtypes-zip64.pt", "dtypes-p2.pt", zip64=True)
    repack("big-endian.pt", "dtypes-p2.pt", byteorder=b"big")
    save("dit.pt", dit())
    save("dit-legacy.pt", dit(), **legacy)
    save("lightning.pt", lightning())
    save("parallel.pt", nn.DataParallel(small()).state_dict())
    save("parameters.pt", dict(small().named_parameters()))
    tagged = nn.Parameter(ramp(2))
    tagged.tag = "a"
    save("tagged.pt", {"ramp": tagged})
    save("module.pt", small())
    save("tensor.pt", ramp(3))
    save("sparse.pt", odd(ramp(3, 3).to_sparse()))
    save("meta.pt", odd(torch.empty(2, device="meta")))
    save("complex.pt", odd(torch.zeros(2, dtype=torch.complex64)))
    save("uint16.pt", odd(torch.zeros(2, dtype=torch.uint16)))
    save("float8.pt", odd(torch.zeros(2, dtype=torch.float8_e4m3fn)))
    save("negated.pt", odd(torch.tensor([1 + 2j]).conj().imag))
    torch.jit.script(small()).save("torchscript.pt")

    # The official crate's writer, where its Python package is there too.
    from safetensors.torch import save_file
    save_file(dtypes(), "official.safetensors", metadata={"format": "pt", "note": "é"})
