"""Prompts that a file holds as their author's chat template wrote them: the messages in such a text.

Another model's template must be given the messages: in a template twice, a prompt is none that was ever asked.
"""

import re

# turns as (role, content), by family, in time linear in the text; the last, which the model was to write, is open
TEMPLATES = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"<\|im_start\|>(\w+)\n((?:(?!<\|im_).)*)<\|im_end\|>",  # ChatML: Qwen, SmolLM, Yi
        r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n((?:(?!<\|start_h|<\|eot_id).)*)<\|eot_id\|>",  # Llama 3
        r"<｜(User|Assistant)｜>(.*?)(?=<｜|\Z)",  # DeepSeek-R1 and its distills
        r"<start_of_turn>(\w+)\n((?:(?!<start_of|<end_of_t).)*)<end_of_turn>",  # Gemma
        r"<\|(system|user|assistant)\|>\n?(.*?)(?=<\|end|<\|system\||<\|user\||<\|assistant\||\Z)",  # Phi, GLM, Zephyr
    )
)
# ChatML without its special tokens, as verl writes it
WITHOUT_TOKENS = re.compile(r"(?:system\n(.*?)\n)?user\n(.*)\nassistant\n(?:<think>\s*)?", re.DOTALL)
OPEN = re.compile(r"\nassistant\n(?:<think>\s*)?\Z")
OTHERS = re.compile(r"<\|start\|>(?:system|developer|user)|\A(?:<s>)?\s*\[INST\]|\[/INST\]\s*\Z")
BEGIN = re.compile(r"<[^<>\s]{0,30}begin[^<>\s]{0,30}>|<s>|<bos>|\[gMASK\]|<sop>")


def turns_in(text: str) -> list[dict[str, str]] | None:
    """The messages of a prompt in a chat template, None if it is in none; a ValueError where they cannot be read."""
    if OTHERS.search(text):
        raise ValueError("the prompt is in a chat template")
    for template in TEMPLATES:
        if turns := template.findall(text):
            system = BEGIN.sub("", text[: next(template.finditer(text)).start()]).strip()
            head = [{"role": "system", "content": system}] if system else []
            return head + [{"role": role.lower(), "content": content} for role, content in turns]
    if OPEN.search(text) and (found := WITHOUT_TOKENS.fullmatch(text)):
        system, user = found.groups()
        return [{"role": "system", "content": system}] * (system is not None) + [{"role": "user", "content": user}]
    return None
