"""Signs of further tasks: what each weighs, and which of them an instruction calls off."""

import pytest

from pipeline.detection.further import ENOUGH, further_tasks, signs
from pipeline.detection.recurring import recurs
from pipeline.detection.requests import Wants, lines_of
from pipeline.detection.said_again import said_again

SIGNS = [
    ("What do cows eat?", "What do sheep drink?", "a request in place of an answer"),
    ("What do cows eat?", "Grass.\n\nWhat is hay?", "a question by itself after the answer"),
    ("What do cows eat?", "Grass.\n\nExplain how hay is made.", "an order after the answer"),
    ("What do cows eat?", "Grass. What is dry grass called? Hay.", "a question among statements"),
    ("What do cows eat?", "Grass.\nChoose the correct word.", "speaks of the form of a task"),
    ("What do cows eat?", "Grass.\nCows eat _____ in winter.", "a blank to fill in"),
    ("What do cows eat?", "Grass.\nUnit 4 Farms", "the title of a lesson or exercise"),
    ("What do cows eat?", "Grass.\n\n<b>Next page</b>", "a part of a web page"),
    ("What do cows eat?", "Grass.\nhttps://example.org/a", "an address or a byline by itself"),
    ("What do cows eat?", "Grass.\nSo: what do cows eat?", "the instruction again"),
    ("What do cows eat?", "Grass.\nAb: hay\nCd: no\nAb: oats\nCd: yes", "two labels take turns"),
    ("What do cows eat?", "Grass.\nAb: What is hay?\nCd: Dry.", "a label with a request"),
    (
        "Who ate it?",
        "He.\nWhich? A. a cow B. a cat",
        "a question with answers to choose from on its line",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("instruction", "text", "reason"), SIGNS, ids=[r for *_, r in SIGNS])
def test_each_sign_is_named(instruction, text, reason):
    assert reason in {sign.reason for sign in signs(text, instruction)}


def test_weak_signs_count_together_and_not_alone():
    one = "Grass.\nCows eat _____ in winter."
    assert not further_tasks(one, "What do cows eat?")
    assert further_tasks(f"{one}\nSheep eat _____ too.", "What do cows eat?")
    assert sum(sign.weight for sign in signs(one, "What do cows eat?")) < ENOUGH


@pytest.mark.parametrize(
    "instruction", ["Write a quiz about farms.", "Ask me about farms.", "Write a worksheet."]
)
def test_what_was_asked_for_is_no_sign(instruction):
    assert signs("What do cows eat?\n\nWhat is hay?\n\nExplain how it is made.", instruction) == []


def test_a_question_that_the_instruction_sets_is_none_that_it_asks_for():
    assert not Wants("Read the passage and answer the following questions.").requests
    assert Wants("Write five questions about rivers.").requests


def test_nothing_is_said_where_the_instruction_is_unknown():
    assert signs("Grass.\n\nWhat is hay?\n\nExplain it.", "") == []


def test_a_line_is_known_apart_from_its_mark_and_label():
    line = next(lines_of("**Q2:** What is hay made of? (2 points)"))
    assert (line.label, line.asks, line.formal) == ("Q", True, True)
    assert [r.text for r in lines_of("```\nWhat is it?\n```\n\n---\n\nYes.")] == ["`code`", "Yes."]


@pytest.mark.parametrize("count, loops", [(8, True), (4, False)])
def test_sentences_out_of_one_mould_are_a_loop(count, loops):
    names = "bird fish snake horse sheep goat mouse hare".split()[:count]
    text = "\n".join(f"If it's a {name}, it will eat {name}s." for name in names)
    assert said_again(text, 1) is loops


RECURRING = {
    "rows": "Many.\n" + "100)\n" * 8,
    "items": "1. Red robin\n2. Wren\n3. Red robin\n4. Crow\n5. Red robin\n6. Wren",
    "named": "owl, crow, wren, owl, crow, wren, owl, crow, wren, owl, crow",
    "inline": "1. Owl 2. Wren 3. Owl 4. Crow 5. Wren 6. Owl 7. Crow 8. Wren 9. Owl",
    "labels": "Step 1:\nStep 2:\nStep 3:\nStep 4:\nStep 5:\n",
    "counters": "1. 2. 3. 4. 5. 6. 7. ",
    "rule": "_" * 64,
}


@pytest.mark.parametrize("text", RECURRING.values(), ids=RECURRING)
def test_lists_and_lines_that_go_round_are_seen(text):
    assert recurs(text, 1)
    assert not recurs("1. Robin\n2. Wren\n3. Crow\n\nName: ________\n| a | a |\n| a | a |", 1)


LEFT_ALONE = {
    "a checkbox": ("Pack for me.", "Bag\n- [ ] Tent\n- [ ] Pad\n- [ ] Map"),
    "a list led up to": (
        "I am shy.",
        "Try a few lines:\n\n- Where is it?\n- Who is he?\n- Is it far?",
    ),
    "a list that asks": (
        "It broke.",
        "Can you say more?\n\n1. What was it?\n2. Who did it?\n3. Is it old?",
    ),
    "titles that ask": ("Explain it.", "## What is hay?\n\nGrass.\n\n## Why is it dry?\n\nSun."),
    "bold titles": (
        "A meeting.",
        "- **A:** Who is it? Why now?\n- **B:** What is it for?\n- **C:** Is it on?",
    ),
    "an offer in Japanese": ("乾草とは何ですか?", "草です。\n\n何か心配なことがありますか?"),
    "a riddle in Turkish": ("Bana bir bilmece sor.", "Arkamda tin tin eder. Bu nedir?"),
    "a dialogue in Italian": (
        "Scrivi un dialogo.",
        "A: Ehi.\nB: Dove va oggi?\nA: Via.\nB: Come va li?\nA: Bene.",
    ),
    "Q and A": (
        "Hay in Q and A form.",
        "Q: What is it?\nA: Grass.\n\nQ: Is it all dry?\nA: Yes.\n\nQ: Who eats it?\nA: Cows.",
    ),
    "a toast": (
        "He weds.",
        "Here is a toast:\n\nFriends. Who here has been late? Ha.\n\nWhat love is there?",
    ),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_forms_of_good_answers_are_no_signs(name):
    instruction, text = LEFT_ALONE[name]
    assert not further_tasks(text, instruction)


_THREE = "1. What is hay?\n2. Who eats the hay?\n3. Why is it dry?"
EXAMS = {
    "an order over them": ("Why?", f"Grass.\n\nAnswer the following questions:\n{_THREE}"),
    "a label over them": ("Why?", f"Grass.\n\nFor you:\n{_THREE}"),
    "one in English at the end": ("Why?", "Grass.\n\nWhat is “hay” made of?"),
    "a prompt and its order": ("Give tips.", "You are an expert.\nWrite three things about hay."),
}


@pytest.mark.parametrize("name", EXAMS)
def test_forms_of_exams_stay_signs(name):
    instruction, text = EXAMS[name]
    assert further_tasks(text, instruction)
