"""Makes the cases *-fp16 beside this file: what the official code computes on a CPU
after convert_to_fp16, with the inputs and weights of the case without -fp16.

    $(sh eval/peers/install.sh) experiments/refcase/testdata/make_half.py

eval/peers/requirements.txt says which guided_diffusion that is. Every output is computed
again with the sums of each convolution and product in float64, rounded to half as the
others are: the distance of the two is what another order of sums does, and the case's
tolerance is TOLERANCE times that. That is as far as float32 is, so that blocks.safetensors
tells whether values are rounded where they should be: the blocks' own inputs and outputs.
"""

import json
import math
import struct
import warnings
from pathlib import Path

import torch

warnings.simplefilter("ignore")
from guided_diffusion.script_util import create_model  # noqa: E402

CASES = Path(__file__).parent / "cases"
TOLERANCE = 4
DTYPES = {"F32": torch.float32, "F16": torch.float16, "I64": torch.int64}
BLOCKS = {  # whose values are kept one by one
    "adm-channel-mult-f16": ["input_blocks.1.0", "input_blocks.2.0", "middle_block.1"],
    "adm-head-channels": ["input_blocks.2.0", "input_blocks.3.0", "output_blocks.1.1", "output_blocks.1.2"],
}


def read(path):
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, t in json.loads(data[8 : 8 + n]).items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            raw = bytearray(data[8 + n + begin : 8 + n + end])
            tensors[name] = torch.frombuffer(raw, dtype=DTYPES[t["dtype"]]).reshape(t["shape"])
    return tensors


def write(path, tensors):
    header, data = {}, b""
    names = {v: k for k, v in DTYPES.items()}
    for name, t in sorted(tensors.items()):
        raw = t.contiguous().numpy().tobytes()
        header[name] = {"dtype": names[t.dtype], "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def settings(text):
    """The model block and the top-level scalars of a case.yaml, which are flat."""
    model, top, block = {}, {}, None
    for line in text.splitlines():
        key, _, value = line.strip().partition(": ")
        value = {"true": True, "false": False}.get(value, value.strip("\"'"))
        if isinstance(value, str) and value.lstrip("-").isdigit() and key != "attention_resolutions":
            value = int(value)
        if not line.startswith(" "):
            block = line.rstrip(":")
            top[key] = value
        elif block == "model":
            model[key] = value
    return model, top


def attention(qkv, heads):
    """SAG's unet.py attention_from_qkv of qkv.float(), averaged over heads, summed over queries."""
    n, width, length = qkv.shape
    q, k, _ = qkv.float().reshape(n * heads, width // heads, length).chunk(3, dim=1)
    s = 1 / math.sqrt(math.sqrt(width // heads // 3))
    weight = torch.softmax(torch.einsum("bct,bcs->bts", q * s, k * s), dim=-1)
    return weight.reshape(n, heads, length, length).mean(1).sum(1)


def keep_block(net, name, blocks):
    """Keeps of the first image what enters and leaves a block, and the vector-Jacobian
    product of the block there, with exact sums: torch's CPU adds up the places of a
    convolution's gradient in half precision, which no GPU does."""

    def hook(block, args, out):
        if name + ".in" in blocks:
            return
        x = args[0][:1].detach().clone()
        blocks[name + ".in"], blocks[name + ".out"] = x, out[:1].detach().clone()
        blocks[name + ".dout"] = torch.randn(out[:1].shape).half()
        with torch.enable_grad(), ExactSums():
            x = x.clone().requires_grad_(True)
            y = block(x, *[a[:1].detach() for a in args[1:]])
            blocks[name + ".din"] = torch.autograd.grad(y, x, blocks[name + ".dout"])[0]
        if len(args) > 1:
            blocks["emb"] = args[1][:1].detach().clone()

    net.get_submodule(name).register_forward_hook(hook)


def adm(flags, top, t, weights):
    names = """image_size num_channels num_res_blocks channel_mult learn_sigma class_cond attention_resolutions num_heads
        num_head_channels num_heads_upsample use_scale_shift_norm resblock_updown use_new_attention_order""".split()
    net = create_model(use_fp16=True, **{k: flags[k] for k in names})
    if flags["class_cond"]:  # the script has 1000 classes
        net.num_classes = flags["num_classes"]
        net.label_emb = torch.nn.Embedding(net.num_classes, 4 * flags["num_channels"])
    net.load_state_dict(weights)
    net.convert_to_fp16()
    caught = []
    for name in BLOCKS.get(top["name"], []):
        keep_block(net, name, top["blocks"])
    net.get_submodule(top["layer"]).attention.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    with torch.no_grad():
        out = {"out.model": net.eval()(t["in.x"], t["in.t"], t.get("in.y"))}
    out["out.attention"] = attention(caught[0], top.get("heads") or flags["num_heads"])
    return out


def classifier(flags, top, t, weights):
    from guided_diffusion.unet import EncoderUNetModel

    net = EncoderUNetModel(
        image_size=flags["image_size"], in_channels=3, model_channels=flags["classifier_width"], out_channels=flags["num_classes"],
        num_res_blocks=flags["classifier_depth"], channel_mult=tuple(map(int, flags["channel_mult"].split(","))), use_fp16=True,
        attention_resolutions=[flags["image_size"] // int(r) for r in str(flags["classifier_attention_resolutions"]).split(",")],
        num_head_channels=flags["num_head_channels"], use_scale_shift_norm=flags["classifier_use_scale_shift_norm"],
        resblock_updown=flags["classifier_resblock_updown"], pool=flags["classifier_pool"],
    )
    net.load_state_dict(weights)
    net.convert_to_fp16()
    x = t["in.x"].clone().requires_grad_(True)
    logits = net.eval()(x, t["in.t"])
    chosen = torch.log_softmax(logits, dim=-1)[range(len(x)), t["in.y"]]
    return {"out.logits": logits.detach(), "out.gradient": torch.autograd.grad(chosen.sum(), x)[0]}


class ExactSums(torch.overrides.TorchFunctionMode):
    """Convolutions and products of half values with sums in float64."""

    NAMES = {"conv1d", "conv2d", "einsum"}

    def __torch_function__(self, f, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        halves = [a for a in args if isinstance(a, torch.Tensor) and a.dtype == torch.float16]
        if getattr(f, "__name__", "") in self.NAMES and halves:
            args = [a.double() if isinstance(a, torch.Tensor) else a for a in args]
            return f(*args, **kwargs).half()
        return f(*args, **kwargs)


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


def make(name, compute, family):
    text = (CASES / name / "case.yaml").read_text()
    flags, top = settings(text)
    t = read(CASES / name / "io.safetensors")
    top["name"], top["blocks"] = name, {}
    weights = torch.load(CASES / name / flags["checkpoint"], map_location="cpu")
    out = compute(flags, top, t, weights)
    with ExactSums():
        exact = compute(flags, top, t, weights)
    moved = {k: relative(exact[k], v) for k, v in out.items()}
    far = {k: relative(v, t[k]) for k, v in out.items()}
    folder = CASES / f"{name}-fp16"
    folder.mkdir(exist_ok=True)
    write(folder / "io.safetensors", {**{k: v for k, v in t.items() if k.startswith("in.")}, **out})
    if top["blocks"]:
        write(folder / "blocks.safetensors", top["blocks"])
    _, _, rest = text.partition("tolerance:\n")
    model = rest[rest.index("model:") : rest.index("notes:")]
    model = model.replace("use_fp16: false", "use_fp16: true").replace(f"checkpoint: {flags['checkpoint']}", f"checkpoint: ../{name}/{flags['checkpoint']}")
    lines = ["kind: forward", f"source: guided-diffusion-sdk 1.0.0 guided_diffusion/unet.py {family}, convert_to_fp16, on a CPU; torch {torch.__version__}, make_half.py",
             "tolerance:", "  per_tensor:"]
    lines += [f"    {k}: {TOLERANCE * v:.1e}" for k, v in moved.items()]
    notes = ["notes:"]
    notes += [f"- '{k}: {moved[k]:.1e} from the same code with sums in float64, {far[k]:.1e} from float32'" for k in out]
    (folder / "case.yaml").write_text("\n".join(lines) + "\n" + model + "\n".join(notes) + "\n")
    print(name, {k: (f"{moved[k]:.1e}", f"{far[k]:.1e}") for k in out})


if __name__ == "__main__":
    torch.manual_seed(0)
    for case in ["adm-channel-mult-f16", "adm-head-channels", "adm-new-attention-order"]:
        make(case, adm, "UNetModel")
    make("classifier-tiny", classifier, "EncoderUNetModel")
