"""Signs of further tasks: what each weighs, and which of them an instruction calls off."""

import random

import pytest

from pipeline.detection.further import further_tasks, signs
from pipeline.detection.lines import lines_of
from pipeline.detection.recurring import recurs
from pipeline.detection.said_again import said_again
from pipeline.detection.sign import ENOUGH
from pipeline.detection.topic import foreign_to, stems
from pipeline.detection.vocabulary import few_words
from pipeline.detection.wants import Wants

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
    ("Where is he?", "How many planets have rings?", "a request in place of an answer"),
    ("Name a cow.", "Circle two tall birds.", "an exam's order in place of an answer"),
    (
        "Name a cow.",
        "Bella.\nWhy do birds fly?\nBirds fly to eat.",
        "a question with its own answer",
    ),
    (
        "Who ate it?",
        "He.\n\n# Do whales drink salt water?",
        "a heading that asks about something else",
    ),
    (
        "Who ate it?",
        "A cow. Do whales drink salt water? Whales drink little.",
        "a question about something else with its answer",
    ),
    ("How to milk?", "Sit.\n\nDefine the word ocean tide.", "an exam's order"),
    ("How to milk?", "Sit.\n\nList out tall birds.", "an order about something else"),
    ("Who ate it?", "He.\nReading 5: So it is.", "a numbered label from the middle of a series"),
    ("Who ate it?", "He.\nReading: It rains.\nNotion: The sun.", "two labels about something else"),
    ("Who ate it?", "Answer: He.\nAnswer: She.", "the label of a second answer"),
    ("Who ate it?", "He did.\n\nTask", "a role word by itself at the end"),
    ("Who ate it?", "He.\nbelow is an instruction that says a task.", "the preamble of a prompt"),
    ("Who ate it?", "He.\nThis activity is good homework.", "speaks of a lesson"),
    ("Who ate it?", "He.\nCheck out our goats.", "speaks as a web page does"),
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
    "a question for one who tells": ("I loved Dune.", "Try Solaris.\n\nWhich planets do you like?"),
    "an offer": ("Who ate it?", "He.\n\nWould you like a list of barns?"),
    "a question asked back": ("Can you fix it?", "I can try. Could you tell me what broke?"),
    "a question handed back": ("Who made the first clock?", "The first clock was made by whom?"),
    "questions of an unknown form": (
        "I have IELTS speaking on Monday.",
        "- Is the tea still hot?\n- What is good rice made of?\n- Why do the fish swim?",
    ),
    "settings": ("Write it.", "name: app\nuser: root\ninput: a.csv\noutput: b.csv"),
    "advice in lines": (
        "Tips for an essay.",
        "Read it twice.\n\nGive an example for each claim.\n\nName your sources.",
    ),
    "the task in other words": ("Sum up the plot of Emma.", "Describe the plot.\nShe meddles."),
    "a step": ("What is it?", "A game.\n\nStep 1: Sit.\nStep 2: Throw."),
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


@pytest.mark.parametrize(
    ("instruction", "prose"),
    [("How many letters are there?", False), ("Can you write me a letter?", True),
     ("Write two sentences.", True), ("Is a text long?", False)],
)  # fmt: skip
def test_a_question_about_a_fact_asks_for_no_text(instruction, prose):
    assert Wants(instruction).prose is prose


def test_one_or_two_sentences_are_no_long_text():
    assert not Wants("Write two sentences.").long_prose
    assert Wants("Write a letter of two sentences.").long_prose


def test_what_a_text_is_about_is_told_by_its_stems():
    assert stems("The bank pays you") & stems("if you stop paying")
    assert foreign_to(stems("What do cows eat?"), "Whales drink salt water.", least=3)
    assert not foreign_to(stems("What do cows eat?"), "A cow is eating.")
    assert not foreign_to(stems("What do cows eat?"), "And what is it?")


@pytest.mark.parametrize("words, loops", [("milk and eggs then honey with", True), ("", False)])
def test_going_round_among_a_few_words_is_a_loop(words, loops):
    pick = random.Random(7)
    text = [pick.choice(words.split()) if words else f"word{i}" for i in range(60)]
    assert few_words(text, 1) is loops


COUNTING = "\n".join(f"{i}. {10 * i} times" for i in range(1, 16))


def test_a_list_that_only_counts_is_a_loop_unless_counting_was_asked_for():
    assert recurs(COUNTING, 1) and not recurs(COUNTING, 2)
    assert not recurs("\n".join(COUNTING.split("\n")[:9]), 1)
