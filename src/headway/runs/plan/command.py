"""`headway plan`: the whole plan of a training or of a measurement, as one JSON object."""

from pathlib import Path
from typing import Any

from msgspec import structs

from headway.choices import lookup
from headway.engines.loading import DTYPES
from headway.runs.plan import checks
from headway.runs.plan.load import Load, of_recipe, of_settings
from headway.runs.plan.machines import CPU, Machine
from headway.runs.plan.memory import CACHE, GROWTH, LAYOUTS, Held, Memory, Numbers, activations, logits, training
from headway.runs.plan.phases import Phase, Rates, Sampler, phases
from headway.runs.plan.recipe import Recipe, read_recipe
from headway.runs.plan.shapes import BYTES, Number, Shape, read_config, shape_of
from headway.runs.settings import PARTS, Settings, extra
from headway.types import HeadwayError

VLLM_OWN = 2e9  # bytes that vLLM has beside weights and cache
VLLM_STEP, LAYER_STEP = 0.002, 0.001  # seconds of a decoding step beside reading: vLLM's, transformers' a layer
UTILIZATION = 0.9  # of a GPU's memory that vLLM takes by itself
HALF = Numbers(2, 2)


def plan_command(
    config: Path | None,
    model: dict[str, str] | None,
    options: dict[str, Any],
    machine: Machine,
    *,
    check: bool = False,
) -> dict[str, Any]:
    """The plan of a recipe, or of a measurement with these options; `check` also reads the recipe as `train` does."""
    machine.check()
    if (config is None) == (model is None):
        raise HeadwayError("plan needs --config recipe.yaml for a training, or --model and flags of measure")
    if config is None or model is not None:
        return plan_measuring(Settings.of(**(model or {}), **options), machine)
    defaults = {f.name: f.default for part in PARTS.values() for f in structs.fields(part)}
    if given := [f"--{name.replace('_', '-')}" for name, value in options.items() if value != defaults[name]]:
        raise HeadwayError(
            f"{', '.join(given)} are of measure; with --config, write options of training into the recipe"
        )
    made = plan_training(config, machine)
    if check:
        with extra("train", "--check needs trl"):
            from headway.training.recipe import GROUPS, parse
        try:
            parse(GROUPS, ["--config", str(config)], "train")
        except HeadwayError as error:
            made["findings"].append(checks.Finding("refused", "headway train, here", str(error))._asdict())
    return made


def plan_training(config: Path, machine: Machine) -> dict[str, Any]:
    """The plan of `headway train --config`. HeadwayError: the recipe or the model's config.json cannot be used."""
    recipe, misspelled = read_recipe(config)
    shape = shape_of(read_config(recipe.model_name_or_path), recipe.model_name_or_path)
    load, gpu = of_recipe(recipe, machine), machine.each
    numbers = _numbers(recipe, shape, machine)
    pool = _pool(recipe, shape, machine)
    kv = shape.kv_bytes(HALF.weights if recipe.use_vllm else numbers.weights)
    needed = (load.traces + load.prefixes) * (load.prompt + load.mean) * kv
    kept = activations(shape, load, numbers, checkpointing=recipe.checkpointing, flash="flash" in recipe.attention)
    head = logits(shape, load, numbers, triton=machine.gpu != CPU)
    held = Held(kept, head, *_cache(recipe, load, kv, gpu.memory), recipe.gradient_accumulation_steps > 1)
    trained = shape.adapter(recipe.lora_r, recipe.lora_target_modules) if recipe.use_peft else shape.parameters
    memory = {
        layout: training(shape, numbers, layout=layout, gpus=machine.gpus, trained=trained, held=held)
        for layout in LAYOUTS
    }
    resident = 1.0 if pool is None else min(1.0, pool / needed)
    if recipe.use_vllm:
        sampler = Sampler(load.traces, HALF, True, True, 0.0 if load.likelihood and not load.branches else resident)
    else:
        sampler = Sampler(load.traces, numbers, False, False, 1.0)
    found = phases(
        shape, load, _rates(machine, shape, vllm=recipe.use_vllm), sampler, checkpointing=recipe.checkpointing
    )
    findings = [checks.Finding("warning", "recipe", text) for text in misspelled]
    findings += [*checks.of_shape(shape, load, vllm=recipe.use_vllm), *checks.of_recipe(recipe, load, machine.gpus)]
    if (peak := memory[recipe.layout].peak) > gpu.memory:
        fitting = [layout for layout in LAYOUTS if memory[layout].peak <= gpu.memory]
        advice = f"{' and '.join(fitting)} would fit" if fitting else "take a smaller batch, more GPUs or LoRA"
        text = f"{recipe.layout} needs {peak / 1e9:.1f} GB of {gpu.memory / 1e9:.0f}; {advice}"
        findings.append(checks.Finding("refused", "memory", text))
    cache = _residency(pool, needed, (load.traces + load.prefixes) * (load.prompt + load.longest) * kv)
    run = _run(found, machine.gpus, load.steps, recipe.max_steps)
    return _plan("training", recipe.model_name_or_path, shape, machine, load) | {
        "layout": recipe.layout, "memory": {layout: _bytes(memory[layout], gpu.memory) for layout in LAYOUTS},
        "phases": _phases(found), "cache": cache, "run": run, "kv_bytes_per_token": kv,
        "context": {"needed": load.context, "given": recipe.vllm_max_model_length, "model": shape.context},
        "findings": [finding._asdict() for finding in findings],
    }  # fmt: skip


def plan_measuring(settings: Settings, machine: Machine) -> dict[str, Any]:
    """The plan of `headway measure`. HeadwayError: the settings or the model's config.json cannot be used."""
    engine, gpu = settings.engine, machine.each
    if engine.name == "scripted":
        raise HeadwayError("the model 'scripted' takes no GPU; plan with a model that has a config.json")
    named = (engine.tokenizer or engine.model) if engine.name == "api" else engine.model
    shape = shape_of(read_config(named), named)
    load, vllm = of_settings(settings, machine), engine.name != "hf"
    size = 2 if vllm and engine.dtype == "auto" else _size(shape, engine.dtype)
    weights, kv = shape.parameters * size, shape.kv_bytes(size)
    row = (load.prompt + load.longest) * kv
    arguments = engine.vllm_arguments()
    if vllm:
        cache = float(arguments.get("gpu_memory_utilization", UTILIZATION)) * gpu.memory - weights - VLLM_OWN
        rows = max(1.0, min(float(arguments.get("max_num_seqs", 256)), cache / ((load.prompt + load.mean) * kv)))
    else:
        cache, rows = CACHE * GROWTH, float(max(1, CACHE // row))
    memory = Memory(weights=weights, cache=cache, sampling=weights + max(cache, row) + (VLLM_OWN if vllm else 0))
    # proving begins when the samples of its chunk are all there: transformers computes each trace once more
    sampler = Sampler(rows, Numbers(size, size), True, vllm, 0.0)
    found = phases(shape, load, _rates(machine, shape, vllm=vllm), sampler, checkpointing=False)
    findings = list(checks.of_shape(shape, load, vllm=vllm))
    if machine.gpus > 1 and engine.name != "api":
        text = f"{engine.name} uses one GPU of {machine.gpus}; serve the model on all with vLLM and use --engine api"
        findings.append(checks.Finding("warning", "gpus", text))
    if not vllm and rows < 8:
        text = f"the transformers engine decodes {rows:.0f} traces at a time; --engine vllm decodes hundreds"
        findings.append(checks.Finding("warning", "engine", text))
    if cache < row or memory.peak > gpu.memory:
        text = f"weights and one trace need {(weights + row) / 1e9:.1f} GB of {gpu.memory / 1e9:.0f}"
        findings.append(checks.Finding("refused", "memory", text))
    given = arguments.get("max_model_len")
    if vllm and given is not None and int(given) < load.context:
        text = f"prompt, trace, suffix and answer take {load.context} tokens, got {given}; set at least {load.context}"
        findings.append(checks.Finding("refused", "max_model_len", text))
    return _plan("measuring", engine.model, shape, machine, load) | {
        "layout": "one GPU", "memory": {"one GPU": _bytes(memory, gpu.memory)}, "phases": _phases(found),
        "cache": None, "run": _run(found, machine.gpus if engine.name == "api" else 1, 1, 1), "kv_bytes_per_token": kv,
        "context": {"needed": load.context, "given": given, "model": shape.context},
        "findings": [finding._asdict() for finding in findings],
    }  # fmt: skip


def _size(shape: Shape, dtype: str | None) -> int:
    """Bytes of a weight: of the number format that is asked for, or of the model's own."""
    asked = lookup(DTYPES, "auto" if dtype is None else dtype, "dtype")
    return lookup(BYTES, shape.dtype if asked == "auto" else asked, "the dtype in config.json")


def _numbers(recipe: Recipe, shape: Shape, machine: Machine) -> Numbers:
    size = _size(shape, recipe.dtype)
    return Numbers(size, 2 if recipe.bf16 or (recipe.bf16 is None and machine.gpu != CPU) else size)


def _pool(recipe: Recipe, shape: Shape, machine: Machine) -> Number | None:
    """Bytes that vLLM has for keys and values; None without vLLM."""
    if not recipe.use_vllm:
        return None
    share = recipe.vllm_gpu_memory_utilization if recipe.vllm_mode == "colocate" else UTILIZATION
    return max(0.0, share * machine.each.memory - shape.parameters * HALF.weights - VLLM_OWN)


def _cache(recipe: Recipe, load: Load, kv: int, memory: Number) -> tuple[Number, Number]:
    """Bytes for keys and values: while the trainer's own model samples, and always, by vLLM."""
    if recipe.use_vllm:
        return 0.0, recipe.vllm_gpu_memory_utilization * memory if recipe.vllm_mode == "colocate" else 0.0
    proving = CACHE if load.boundaries else 0
    rows = load.traces * (load.prompt + load.longest) * kv
    return rows * GROWTH + min(proving, rows), 0.0


def _rates(machine: Machine, shape: Shape, *, vllm: bool) -> Rates:
    step = machine.step_ms / 1000 if machine.step_ms is not None else VLLM_STEP if vllm else LAYER_STEP * shape.layers
    return Rates(machine.each.flops * machine.mfu, machine.each.bandwidth * machine.mbu, step)


def _residency(pool: Number | None, mean: Number, most: Number) -> dict[str, Number] | None:
    if pool is None:
        return None
    return {"pool": pool, "mean": mean, "most": most, "resident": min(1.0, pool / mean)}


def _bytes(memory: Memory, there: Number) -> dict[str, Any]:
    parts = {name: getattr(memory, name) for name in memory.__struct_fields__}
    return parts | {"peak": memory.peak, "fits": memory.peak <= there}


def _phases(found: dict[str, Phase]) -> list[dict[str, Any]]:
    total = sum(phase.seconds for phase in found.values())
    return [{"phase": n, **p._asdict(), "share": p.seconds / total} for n, p in found.items()]


def _run(found: dict[str, Phase], gpus: int, steps: Number, asked: int) -> dict[str, Any]:
    """Seconds of a step, and hours and GPU hours of all where their number is known."""
    seconds = sum(phase.seconds for phase in found.values()) / steps
    hours = seconds * asked / 3600 if asked > 0 else None
    gpu_hours = None if hours is None else hours * gpus
    return {"steps": asked if asked > 0 else None, "seconds_per_step": seconds, "hours": hours, "gpu_hours": gpu_hours}


def _plan(what: str, model: str, shape: Shape, machine: Machine, load: Load) -> dict[str, Any]:
    options = {name: getattr(machine, name) for name in machine.__struct_fields__}
    return {
        "plan": what, "model": model, "parameters": shape.parameters, "machine": options | machine.each._asdict(),
        "load": {name: getattr(load, name) for name in load.__struct_fields__},
    }  # fmt: skip
