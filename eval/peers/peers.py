"""One measurement of a public evaluator or of a network in a public library, in a
process of its own.

    python peers.py PEER TASK FOLDER [DEVICE]

FOLDER holds what sagbench measures itself on: inception.pt (the FID Inception
under pytorch-fid's names) and data.npz with images (uint8 NHWC), ref and gen
(float32 features); networks.json with the family, a checkpoint and the flags of the
official code for each network. A network's TASK is its name and a batch size, adm-64/8.
DEVICE is where torch runs it, cpu if it is absent; "gpu" is the one that torch finds.
SAGBENCH_OFFICIAL names a folder with checkouts of the official code that no package
registry has: SiT (willisma/SiT), edm (NVlabs/edm), edm2 (NVlabs/edm2).
The TASK evaluation scores the folders images-png and images-jpg beside these.
Prints one line: seconds, of the fastest repetition where there are several,
the largest resident size of the process in bytes and, of an evaluation, its FID.
"""

import inspect
import json
import os
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

REPETITIONS = 3
WARM_UP = 8  # images


def timed(work, repetitions=1):
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def in_batches(network, images, size):
    with torch.no_grad():
        network(images[:WARM_UP])
        return timed(lambda: [network(batch) for batch in images.split(size)], REPETITIONS)


def arrays(folder, *names):
    with np.load(folder / "data.npz") as data:
        return [torch.from_numpy(data[name]) for name in names]


def images(folder):
    return arrays(folder, "images")[0].permute(0, 3, 1, 2).contiguous()


def features(folder):
    return arrays(folder, "ref", "gen")


def statistics(x):
    return np.mean(x, axis=0), np.cov(x, rowvar=False)


def pytorch_fid_inception(folder, **options):
    from pytorch_fid import inception

    inception.load_state_dict_from_url = lambda *_, **__: torch.load(folder / "inception.pt")
    return inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]], **options).eval()


def folders(folder):
    """The images of a whole evaluation: samples, reference."""
    return str(folder / "images-png"), str(folder / "images-jpg")


def timed_score(work):
    start = time.perf_counter()
    value = float(work())
    return time.perf_counter() - start, value


class TorchFidelity:
    def evaluation(self, folder):
        from torch_fidelity import calculate_metrics

        samples, reference = folders(folder)
        return timed_score(lambda: calculate_metrics(
            input1=samples, input2=reference, fid=True, cuda=False, verbose=False, cache=False,
            feature_extractor_weights_path=str(folder / "inception.pt"),
        )["frechet_inception_distance"])

    def inception(self, folder):
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        net = FeatureExtractorInceptionV3(
            "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=folder / "inception.pt"
        )
        return in_batches(net, images(folder), 64)  # its default batch size

    def covariance(self, folder):
        from torch_fidelity.metric_fid import fid_features_to_statistics

        ref, gen = features(folder)
        return timed(lambda: (fid_features_to_statistics(ref), fid_features_to_statistics(gen)))

    def fid(self, folder):
        from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

        ref, gen = map(fid_features_to_statistics, features(folder))
        return timed(lambda: fid_statistics_to_metric(gen, ref, False))

    def precision_recall(self, folder):
        from torch_fidelity.metric_prc import prc_features_to_metric

        ref, gen = features(folder)
        return timed(lambda: prc_features_to_metric(gen, ref, verbose=False))


class PytorchFID:
    def inception(self, folder):
        return in_batches(pytorch_fid_inception(folder), images(folder).float() / 255, 50)  # its default batch size

    def evaluation(self, folder):
        from pytorch_fid import fid_score, inception

        inception.load_state_dict_from_url = lambda *_, **__: torch.load(folder / "inception.pt")
        samples, reference = folders(folder)
        return timed_score(lambda: fid_score.calculate_fid_given_paths([samples, reference], 50, "cpu", 2048, os.cpu_count()))

    def fid(self, folder):
        from pytorch_fid.fid_score import calculate_frechet_distance

        ref, gen = (statistics(x.numpy()) for x in features(folder))
        return timed(lambda: calculate_frechet_distance(*gen, *ref))


class CleanFID:
    def evaluation(self, folder):
        from cleanfid import fid

        # Its own network is a TorchScript file; this one has the same layers.
        network = pytorch_fid_inception(folder, resize_input=False, normalize_input=False)
        samples, reference = folders(folder)
        return timed_score(lambda: fid.compute_fid(
            samples, reference, mode="clean", device=torch.device("cpu"), num_workers=os.cpu_count(), verbose=False, use_dataparallel=False,
            custom_feat_extractor=lambda x: network((x - 128) / 128)[0].flatten(1),
        ))

    def fid(self, folder):
        from cleanfid.fid import frechet_distance

        ref, gen = (statistics(x.numpy()) for x in features(folder))
        return timed(lambda: frechet_distance(*gen, *ref))


def adm(flags, batch):
    """OpenAI's ADM as guided_diffusion builds it, and its inputs."""
    from guided_diffusion.script_util import create_model

    net = create_model(**{k: flags[k] for k in inspect.signature(create_model).parameters if k in flags})
    inputs = [torch.randn(batch, 3, flags["image_size"], flags["image_size"]), torch.full((batch,), 500)]
    if flags["class_cond"]:
        inputs.append(torch.zeros(batch, dtype=torch.long))
    return net, inputs


def official(name, repository):
    """Makes the modules of a checkout importable."""
    checkouts = os.environ.get("SAGBENCH_OFFICIAL")
    folder = Path(checkouts or "") / name
    if not checkouts or not folder.is_dir():
        raise SystemExit(f"no official code: run `git clone https://github.com/{repository} DIR/{name}` and then `make bench-peers OFFICIAL=DIR`")
    sys.path.insert(0, str(folder))


def sit(flags, batch):
    """SiT of willisma/SiT models.py, told a time in [0,1]."""
    official("SiT", "willisma/SiT")
    from models import SiT

    net = SiT(**{k: flags[k] for k in inspect.signature(SiT).parameters if k in flags})
    side = flags["input_size"]
    return net, [torch.randn(batch, flags["in_channels"], side, side), torch.full((batch,), 0.5), torch.zeros(batch, dtype=torch.long)]


def preconditioned(make, flags, batch):
    """A network of NVlabs, told a noise level, with one-hot labels. Flags that are not set have the official defaults."""
    net = make(**{k: v for k, v in flags.items() if k not in ("precond", "encoder", "vae") and v})
    side, labels = flags["img_resolution"], flags["label_dim"]
    return net, [torch.randn(batch, flags["img_channels"], side, side), torch.full((batch,), 0.5), torch.eye(labels)[torch.zeros(batch, dtype=torch.long)]]


def edm(flags, batch):
    official("edm", "NVlabs/edm")
    from training import networks

    return preconditioned(getattr(networks, flags["precond"]), flags, batch)


def edm2(flags, batch):
    official("edm2", "NVlabs/edm2")
    from training.networks_edm2 import Precond

    return preconditioned(Precond, flags, batch)


FAMILIES = {"adm": adm, "sit": sit, "edm": edm, "edm2": edm2}


def device_of(name):
    """The device, or an exit where this torch does not compute on it."""
    if name == "gpu":
        found = torch.accelerator.current_accelerator(check_available=True)
        if found is None:
            raise SystemExit("this torch finds no GPU")
        return found
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SystemExit(f"this torch does not compute on {name}: {error}") from error
    return device


class Network:
    """A network of the official code; the fastest of calls of some seconds."""

    def __init__(self, device="cpu"):
        self.device = device_of(device)
        # float32 is float32, as with sagbench, and not TF32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def prepare(self, net, inputs):
        return lambda: net(*inputs)

    def finished(self, call):
        """A call to its end: a GPU only queues it."""
        if self.device.type == "cpu":
            return call
        return lambda: (call(), torch.accelerator.synchronize(self.device))

    def run(self, folder, name, batch):
        network = json.loads((folder / "networks.json").read_text())[name]
        net, inputs = FAMILIES[network["family"]](network["flags"], batch)
        net.eval()
        missing, unexpected = net.load_state_dict(torch.load(network["checkpoint"], map_location="cpu"), strict=False)
        parameters = dict(net.named_parameters())
        if unexpected or any(key in parameters for key in missing):
            raise SystemExit(f"{name}: the checkpoint lacks {missing} and has {unexpected}")
        net.to(self.device)
        with torch.no_grad():  # inference_mode trips torch.compile over arrays of NumPy in EDM2
            call = self.finished(self.prepare(net, tuple(x.to(self.device) for x in inputs)))
            call()
            times, start = [], time.perf_counter()
            while time.perf_counter() - start < 3 or len(times) < 3 and time.perf_counter() - start < 10:
                times.append(timed(call))
        return min(times)


class Compiled(Network):
    def prepare(self, net, inputs):
        net = torch.compile(net)
        return lambda: net(*inputs)


class CompiledHalf(Network):
    dtype: torch.dtype

    def prepare(self, net, inputs):
        net = torch.compile(net)

        def call():
            with torch.autocast(self.device.type, dtype=self.dtype):
                net(*inputs)

        return call


class CompiledBFloat16(CompiledHalf):
    dtype = torch.bfloat16


class CompiledFloat16(CompiledHalf):
    dtype = torch.float16


class OpenVINO(Network):
    def prepare(self, net, inputs):
        import openvino

        core = openvino.Core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if "BF16" not in capabilities:  # the hint is ignored then, or ends the process
            raise SystemExit(f"OpenVINO has no BF16 on this processor, but {', '.join(capabilities)}")
        model = openvino.convert_model(net, example_input=inputs, input=[tuple(x.shape) for x in inputs])
        settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": int(os.environ["OMP_NUM_THREADS"])}
        compiled = core.compile_model(model, "CPU", settings)
        arrays = [x.numpy() for x in inputs]
        return lambda: compiled(arrays)


PEERS = {"torch-fidelity": TorchFidelity, "pytorch-fid": PytorchFID, "clean-fid": CleanFID}
NETWORKS = {"torch": Network, "torch.compile": Compiled, "torch.compile, bf16": CompiledBFloat16, "torch.compile, fp16": CompiledFloat16, "OpenVINO, bf16": OpenVINO}


def main():
    peer, task, folder, *device = sys.argv[1:]
    warnings.simplefilter("ignore")
    if peer in NETWORKS:
        name, batch = task.split("/")
        seconds = NETWORKS[peer](*device).run(Path(folder), name, int(batch))
    else:
        seconds = getattr(PEERS[peer](), task)(Path(folder))
    value = []
    if task == "evaluation":
        seconds, *value = seconds
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, *value)


if __name__ == "__main__":
    main()
