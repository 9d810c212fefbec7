"""Near-duplicates: one task in other words, told from another in nearly the same words."""

import resource
import time

import pytest

from pipeline.good_pairs import good_pairs
from pipeline.metrics import Rules, measure
from pipeline.near_duplicates import NearDuplicates, alike, folded
from pipeline.types import Sample


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the capital of France?", "What is the capital of France"),
        ("What is the capital of France?", "What's the capital of France?"),
        ("Give three tips for sleeping better.", "Give me three tips for sleeping better!"),
        ("How many people are there in this class?", "How many people are there in the class?"),
        ("Describe the process of photosynthesis.",
         "Describe the process of photosynthesis in plants."),
        ("List two things that can be made from wood.",
         "List two things that can be made with wood."),
        ("Write a poem about the sea.", "Please write poems about a sea."),
        ("How do I boil an egg?", "How do you boil eggs?"),
    ],
)  # fmt: skip
def test_the_same_task_in_other_words(one, other):
    index = NearDuplicates()
    assert not index.add(one) and index.add(other)
    assert len(index) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the capital of France?", "What is the capital of Spain?"),
        ("Name a fruit that is red.", "Name a fruit that is green."),
        ("List five tips for saving energy at home.", "List three tips for saving energy at home."),
        ("What is 17 multiplied by 6?", "What is 17 multiplied by 8?"),
        ("Write a short story about a dog who finds a lost child in the park.",
         "Write a short story about a cat who finds a lost child in the park."),
        ("Translate 'good morning' into French.", "Translate 'good morning' into Finnish."),
        ("Count from 1 to 10.", "Count from 1 to 100."),
        ("Give tips for sleeping much better.", "Give 10 tips for sleeping much better."),
        ("Convert 3 feet to metres.", "Convert 3 metres to feet."),
        ("Translate this letter to English.", "Translate this letter from English."),
        ("Name a fruit.", "Why is the sky blue?"),
        ("Write hello world in C++.", "Write hello world in C#."),
        ("Calculate 12 + 4.", "Calculate 12 * 4."),
        ("Is x > y true?", "Is x < y true?"),
        ("What should I wear at -5 degrees?", "What should I wear at 5 degrees?"),
        ("Translate this page from French to English.",
         "Translate this page from English to French."),
        ("How do I turn the heating on?", "How do I turn the heating off?"),
        ("Name a country with no coast.", "Name a country with a coast."),
        ("Should I eat raw fish?", "Could I eat raw fish?"),
        ("How long does it take to fly to Rome?", "How long does it take to fly from Rome?"),
        ("日本の首都はどこですか？", "中国の首都はどこですか？"),
    ],
)  # fmt: skip
def test_another_task_in_nearly_the_same_words(one, other):
    index = NearDuplicates()
    assert not index.add(one) and not index.add(other)
    assert not alike(folded(one), folded(other)) and not alike(folded(other), folded(one))


def test_in_a_long_text_one_exchanged_word_makes_no_other_task():
    text = " ".join(f"word{n}" for n in range(40))
    index = NearDuplicates()
    assert not index.add(text) and index.add(text.replace("word20", "another"))


def test_good_instructions_are_no_near_duplicates_of_each_other():
    index = NearDuplicates()
    assert not any(index.add(pair.instruction) for pair in good_pairs())


@pytest.mark.parametrize("text", ["", "?!", "a", "ab", "é", "Hi"])
def test_the_shortest_texts(text):
    index = NearDuplicates()
    assert not index.add(text)
    assert not index.add("Name a fruit that grows in Spain.")


def test_the_metric_counts_them_beside_exact_repeats():
    texts = [
        "Name a fruit that is red.",
        "Name the fruit that is red.",
        "Name a fruit that is red.",
    ]
    rows = [Sample(i, t, t) for i, t in enumerate(texts)]
    rows[2] = Sample(2, texts[2], texts[2], dropped="duplicate")
    rows.append(Sample(3, "", dropped="parser"))
    found = measure(rows, Rules({}, {}, 0.05), wanted=3)
    assert (found["near_duplicates"].count, found["near_duplicates"].n) == (1, 3)
    assert (found["duplicates"].count, found["duplicates"].verdict) == (1, None)


@pytest.mark.parametrize("form", ["Explain topic {n} in {m} words.", "Tell us of {m}, please {n}"])
def test_five_thousand_a_second_even_from_one_template(form):
    texts = [form.format(n=n * 7919, m=n * 31) for n in range(20_000)]
    index = NearDuplicates()
    started = time.process_time()
    for text in texts:
        index.add(text)
    assert time.process_time() - started < 20_000 / 5_000


@pytest.mark.slow
def test_a_hundred_and_fifty_thousand_fit_in_half_a_gigabyte():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    index = NearDuplicates()
    for n in range(150_000):
        index.add(f"Tell me about matter number {n * 7919} and what comes of {n * 31}.")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
