"""How people ask about recordings: the wordings of each family of questions, and words to fill them with.

``{x}`` and ``{y}`` stand for phrases such as "a dog barking", ``{is}`` and ``{does}`` agree with ``{x}``. All wordings
are lower case with their question mark; :func:`as_typed` varies both.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from pengi import templates

CANT_TELL, NOTHING_SAID, NOTHING_CLEAR = templates.CANT_TELL, templates.NOTHING_SAID, templates.NOTHING_CLEAR
NOBODY = "nobody"
NONE = "none"
NONE_OF_THESE = "none of these"
NEITHER = "neither"

PRESENCE = (
    "{is} there {x}?", "{is} there {x} in this recording?", "{is} there {x} in the audio?", "{is} there {x} here?",
    "do you hear {x}?", "can you hear {x}?", "can {x} be heard?", "can {x} be heard in this clip?",
    "does this recording contain {x}?", "does this contain {x}?", "does the clip include {x}?",
    "is this the sound of {x}?", "{is} {x} audible?", "{is} {x} in this recording?", "do i hear {x}?", "is that {x}?",
    "is it {x}?", "{x}?", "can you make out {x}?", "did the microphone pick up {x}?", "yes or no: {is} there {x}?",
    "could this be {x}?", "please check whether there {is} {x}", "i want to know if there {is} {x} in this file",
    "tell me if you hear {x}", "does it sound like {x}?", "{is} there {x} anywhere in this?",
    "{does} {x} occur in the recording?", "does one hear {x}?", "do we hear {x} at any point?", "{was} {x} recorded?",
    "{is} {x} one of the sounds?", "{is} there {x} somewhere in the recording?", "listen for {x}: is it there?",
    "does the recording have {x} in it?",
)  # fmt: skip
ABSENCE = (
    "is it true that there {is} no {n}?", "there {is} no {n} here, right?", "{is} {n} missing from this recording?",
    "is it correct that you don't hear {x}?", "is this recording free of {n}?", "{is} there no {n} here?",
    "is the statement 'there {is} no {n}' true?", "true or false, answer yes or no: there {is} no {n}",
    "can it be said that {x} cannot be heard?", "is it right that {x} can't be heard?", "{is} {n} absent?",
    "would it be correct to say there {is} no {n} in this clip?", "so there {is} no {n} in it, correct?",
    "is it the case that there {is} no {n} in the audio?", "is this without any {n}?", "does this recording lack {n}?",
    "am i right that there {is} no {n}?", "is it true that {x} is not in this recording?",
    "{is} {n} not present in this recording?", "can we rule out {x}?", "is it true you cannot hear {x}?",
    "does the file contain no {n}?",
)  # fmt: skip
SPEECH = (
    "is someone speaking?", "is there speech?", "do you hear a voice?", "does anybody talk?", "is anyone talking?",
    "is there a person speaking?", "can speech be heard?", "does this recording contain speech?", "is there talking?",
    "are there any voices?", "do you hear someone speak?", "is anybody speaking in this recording?", "any speech?",
    "are words spoken?", "does a person speak?", "do people talk in this clip?", "is there any spoken language in it?",
    "is a voice speaking?", "is a human voice talking here?", "is somebody saying something?", "speech?",
    "is there a voice in the recording?", "does someone say something?", "can you hear somebody talk?",
    "does anyone say anything?", "is something being said?", "can you hear a person talking?",
    "is this someone talking?",
)  # fmt: skip
NO_SPEECH = (
    "is it true that nobody speaks?", "is there no speech in this recording?", "is it correct that no one is talking?",
    "is this recording free of speech?", "nobody is talking, right?", "is speech absent?", "does nobody say anything?",
    "is it true that there is no talking?", "are there no voices in this?", "is the clip without any speech?",
    "is it right that no words are spoken?", "would you say that nobody talks here?",
)  # fmt: skip
MUSIC = (
    "is there music?", "is music playing?", "do you hear music?", "is this music?",
    "does this recording contain music?", "can music be heard?", "any music?",
    "is there any music in the background or foreground?", "music?", "is somebody playing music?",
    "does it have music in it?", "can you hear any music?", "is it a piece of music?",
    "is there a song or any other music?", "do you notice music?", "is some kind of music audible?",
    "is there a tune playing?", "does the clip include music?", "is an instrument playing?",
    "is there music in this file?",
)  # fmt: skip
SAID = (
    "what is said?", "what does the speaker say?", "what is the speaker saying?", "what does the person say?",
    "what is being said?", "what did they say?", "what words are spoken?", "what are they saying?", "transcribe this",
    "write down what is said", "what is the transcript?", "please transcribe the speech", "give me the words",
    "which words are spoken?", "can you tell me what is said?", "what does the voice say?",
    "what do you hear them say?", "repeat what was said", "what is spoken in this recording?",
    "what does he or she say?", "transcript please", "transcription", "what is the person saying?",
    "what do people say?", "what did the person just say?", "what exactly is said?", "what's said here?",
    "what's the speaker saying?", "what is the message?", "can you type out the speech?", "what do they talk about?",
    "tell me what the voice says", "what was said?", "what sentence is spoken?", "say what is said",
    "quote the speaker", "what are the spoken words?",
)  # fmt: skip
SAYS = (
    "does the speaker say '{w}'?", "does she or he say '{w}'?", 'does the person say "{w}"?', 'is "{w}" said?',
    "is the word {w} said?", "does the speaker say {w}?", "does anyone say {w}?", 'can you hear the word "{w}"?',
    "is {w} mentioned?", 'do they say "{w}"?', "do they say {w}?", "does somebody mention {w}?",
    "is the word '{w}' spoken?", "do you hear the word {w}?", "did they say {w}?", 'did the person say "{w}"?',
    "does the voice say {w}?", "was {w} said?", 'is "{w}" spoken in this recording?',
    'does the recording contain the word "{w}"?', "is someone saying {w}?", 'is it "{w}" that is said?',
    "does the person mention {w}?", "was the word {w} mentioned?",
)  # fmt: skip
WHO = (
    "who is speaking?", "who speaks?", "who is talking?", "is the speaker a man or a woman?", "male or female?",
    "who is speaking, a man or a woman?", "is this a woman or a man?", "is it a man, a woman or a child speaking?",
    "what kind of person is talking?", "whose voice is it: a man's, a woman's or a child's?",
    "is the voice male or female?", "what is the gender of the speaker?", "what's the speaker's gender?",
    "man or woman?", "is that a guy or a girl talking?", "who do you hear talking?", "who can be heard speaking?",
    "which gender is the speaker?", "who says something?", "who talks in this recording?",
    "is a man or a woman talking?", "a woman or a man?", "a man or a woman?", "does a man or a woman speak?",
    "is the person who speaks male or female?", "who is heard speaking here?", "what sort of voice is this?",
    "is the speaker male or female?", "tell me who is speaking", "whose voice is this?",
)  # fmt: skip
IS_SPEAKER = (
    "is {who} speaking?", "is {who} talking?", "do you hear {who} speaking?", "do you hear {who} talking?",
    "is there {who} speaking?", "is there {who} talking?", "is the speaker {who}?", "is it {who} who is speaking?",
    "can {who} be heard talking?", "does {who} say something?", "is that the voice of {who}?",
    "does this sound like {who}?",
    "is {who} saying something?", "is the voice that of {who}?", "does {who} speak in this recording?",
    "is {who} among the speakers?", "can you hear the voice of {who}?", "is it {who}?",
)  # fmt: skip
SPEAKERS = (
    "how many people are talking?", "how many people speak?", "how many speakers are there?",
    "how many voices are there?", "how many persons are speaking?", "how many people do you hear talking?",
    "number of speakers?", "how many different voices can be heard?", "how many people can be heard talking?",
    "count the speakers", "how many people are speaking in this recording?", "how many are talking?",
    "how many human voices do you hear?", "how many different people talk?",
    "how many talkers are in this clip?", "what is the number of speakers?", "how many speaking people are there?",
    "tell me how many people talk", "how many people say something?", "how many speakers can you make out?",
    "how many individuals are speaking?",
)  # fmt: skip
HOW_MANY = (
    "how many {things} are there?", "how many {things} do you hear?", "how many {things} can be heard?",
    "how many {things} can you hear?", "number of {things}?", "count the {things}", "how many {things}?",
    "what is the number of {things}?", "how many {things} are in this recording?", "how many {things} does this have?",
    "how many {things} are there in the clip?", "can you count the {things}?", "tell me how many {things} there are",
    "how many {things} do you notice?", "how many {things} are audible?", "please count the {things} you hear",
    "give the number of {things}", "how many {things} come up in the audio?", "how many {things} did you hear?",
    "how many {things} were recorded?", "what's the count of {things}?", "how many {things} make up this clip?",
    "how many {things} occur here?", "say how many {things} can be heard",
    "in total, how many {things} are there?", "how many {things} altogether?", "{things}: how many?",
    "to how many {things} does it add up?", "what number of {things} do you hear?", "how many {things} have you heard?",
    "how many {things} could you pick out?", "how many {things} did the microphone pick up?",
    "how many {things} do we have in the audio?", "a question of counting: how many {things}?",
    "how many {things} would you count?", "i'd like to know how many {things} there are",
    "are there any {things}, and how many?", "how many {things} are to be heard?", "how many {things} are present?",
    "please tell me the number of {things}",
)  # fmt: skip
HOW_OFTEN = (
    "how many times do you hear {x}?", "how often can {x} be heard?", "how often do you hear {x}?",
    "how often {is} {x} heard?", "how many times {is} {x} heard?", "how many times can you hear {x}?",
    "count how often {x} can be heard", "how many times {does} {x} occur?", "how often {does} {x} come up?",
    "on how many occasions do you hear {x}?", "number of times {x} is heard?",
    "how many separate times do you hear {x}?", "how often in total {is} {x} audible?",
    "how many times did you hear {x}?", "say how many times {x} can be heard", "how many times {was} {x} recorded?",
    "how many times over do you hear {x}?", "how frequently can {x} be heard?",
    "how many repetitions of {x} are there?", "what is the count for {x}?", "how often did you hear {x}?",
    "how often {was} {x} heard?", "{x}: how many times?", "how many times in total can you hear {x}?",
    "how many instances of {x} are there?", "how many separate occurrences of {x} can be heard?",
    "how often {does} {x} occur?", "how often {does} {x} happen?", "how many times {does} {x} happen?",
    "how many times {does} {x} sound?", "count the times you hear {x}", "is it once, twice or more that you hear {x}?",
    "once or several times: how often do you hear {x}?", "how often {does} {x} show up?",
    "how many times {does} {x} come up in the clip?", "how often do we hear {x} in all?",
    "how many times have you heard {x}?", "tell me how often you hear {x}",
    "how often {does} {x} repeat itself, counting the first time?", "how many times {is} {x} repeated in all?",
)  # fmt: skip
EXACTLY = (
    "{are} there exactly {number} {things}?", "do you hear exactly {number} {things}?",
    "{are} there {number} {things}?", "is it true that there {are} {number} {things}?",
    "can you hear {number} {things}?", "is {number} the number of {plural}?",
    "would you say there {are} {number} {things}?", "do you count {number} {things}?",
    "{number} {things}, is that right?", "{are} there just {number} {things}?",
    "{are} there {number} {things} in this recording?", "can {number} {things} be heard?",
    "does the clip have {number} {things}?", "does this contain exactly {number} {things}?",
    "would {number} be the right count of {plural}?", "if you count the {plural}, do you get {number}?",
    "is the count of {plural} {number}?", "does the number of {plural} equal {number}?",
    "{are} there {number} {things} in total?", "{are} there {number} {things} altogether?",
    "is it correct to say there {are} {number} {things}?", "did you hear {number} {things}?",
    "do we hear {number} {things}, no more and no less?", "i count {number} {things}, am i right?",
    "there {are} {number} {things}, yes or no?", "would you count {number} {things}?",
    "does it add up to {number} {things}?", "{number}: is this how many {plural} there are?",
    "{are} {number} {things} what you hear?", "can one make out {number} {things}?",
    "are the {plural} {number} in number?", "{are} there precisely {number} {things}?",
    "do {number} {things} make up this audio?", "is {number} how many {plural} you hear?",
    "does it hold {number} {things}?",
)  # fmt: skip
WHICH_OF_TWO = (
    "is this {x} or {y}?", "which is it, {x} or {y}?", "do you hear {x} or {y}?", "{x} or {y}?", "is it {x} or {y}?",
    "what is it: {x} or {y}?", "which of the two do you hear, {x} or {y}?", "is that {x}, or {y}?",
    "would you say this {is} {x} or {y}?", "does this sound like {x} or like {y}?", "which one is it: {x} or {y}?",
    "which can be heard, {x} or {y}?", "is there {x} or {y} in this recording?", "what do you hear, {x} or {y}?",
    "am i hearing {x} or {y}?", "which of these two is it: {x}, {y}?", "what would you rather call it, {x} or {y}?",
    "was that {x} or {y}?", "choose: {x} or {y}", "tell me whether this {is} {x} or {y}",
)  # fmt: skip
WHICH_OF_THESE = (
    "which of these do you hear: {list}?", "which of these is it: {list}?",
    "which of the following can be heard: {list}?", "choose one: {list}", "what is it: {list}?", "is this {list_or}?",
    "which one is it, {list_or}?", "pick the right one: {list}", "which of these sounds is in the recording: {list}?",
    "select what you hear: {list}", "is it {list_or}?", "which fits best: {list}?", "do you hear {list_or}?",
    "out of {list}, which is there?", "options: {list}. which one?", "which of these is in the audio: {list_or}?",
    "what do you hear: {list_or}?", "one of these is it: {list}. which?", "classify this sound as one of: {list}",
    "which of the following is this: {list}", "{list_or}?", "which of {list} can be heard?",
    "label this clip with one of {list}", "does it sound like {list_or}?",
)  # fmt: skip
WHAT = (
    "what is this sound?", "what do you hear?", "what can be heard?", "what sound is this?", "what is happening?",
    "what is it?", "what's that sound?", "what am i hearing?", "what is in this recording?", "what makes this sound?",
    "what kind of sound is it?", "which sound is this?", "what's going on?", "what is that noise?",
    "what could this be?", "can you identify this sound?", "identify the sound", "name this sound",
    "what can you hear?", "what's this?", "what sounds are there?", "what is the source of the sound?",
    "what was recorded?", "what's in the audio?", "which sounds do you hear?", "what is making that noise?",
    "tell me what you hear", "what do we hear here?", "what does this sound like?", "what is audible?",
    "what's happening in this clip?", "what is this a recording of?", "what sounds can you recognise?",
    "what is the main sound?", "what caused this sound?", "what type of noise is this?",
)  # fmt: skip
LIST = (
    "list the sounds", "list all sounds you hear", "which sounds are in this recording? make a list",
    "list what can be heard", "name all the sounds", "name every sound you can hear", "give me a list of the sounds",
    "enumerate the sounds", "what are all the sounds?", "make a list of everything you hear",
    "what sound events are there?", "sound events", "tag this recording", "tags for this audio",
    "list the sound events", "which events can be heard?", "keywords for this sound", "label this sound",
    "give labels for this recording", "what tags would you give this clip?",
)  # fmt: skip
DESCRIBE = (
    "describe this recording", "describe the sound", "describe what you hear", "describe this audio",
    "describe this clip", "write a caption for this sound", "caption this", "give me a description of this sound",
    "what happens in this recording?", "summarize the recording", "describe the scene", "caption this audio",
    "describe it in one sentence", "write a caption", "explain what can be heard", "tell me about this recording",
    "what is going on in this recording?", "describe", "give a short description of the audio",
    "how would you describe this sound?", "say in a sentence what you hear", "write one sentence about this sound",
    "what would you tell a deaf person about this sound?", "audio description, please", "put into words what you hear",
    "write a short summary of the audio", "can you describe the audio for me?",
    "please describe the sounds in this file", "describe the audio clip in plain words", "what happens here?",
)  # fmt: skip
FIRST = (
    "what is heard first?", "which sound comes first?", "what does this recording begin with?", "what comes first?",
    "what do you hear first?", "how does the recording begin?", "what is the first sound?",
    "what can be heard at the beginning?", "what's at the start?", "which sound does it start with?",
    "what starts the recording?", "what is the earliest sound?", "what opens the clip?", "first sound?",
    "what do you hear at the start?", "with which sound does it begin?", "what happens first?", "name the first sound",
    "which is the first sound you hear?", "what occurs first?", "what is the very first thing you hear?",
    "which sound leads off?", "what gets this recording started?", "what kicks off this audio?",
    "which noise do you hear before all others?", "what is the opening sound?", "what sets it off?",
    "at the outset, what can be heard?", "what makes the first noise?", "what is first in the sequence?",
    "which of the sounds has the earliest start?", "what are the first seconds of it?",
    "what greets the listener first?", "what is there before everything else?", "which sound opens it?",
    "what does the audio start off with?", "what do the opening seconds contain?", "what introduces the recording?",
    "which event happens earliest?", "what did you hear first of all?", "when the clip starts, what is to be heard?",
    "tell me what comes first", "put the sounds in order: what is number one?", "what is the initial sound?",
    "who or what makes the first sound?", "which sound is ahead of the rest?",
)  # fmt: skip
LAST = (
    "what is heard last?", "which sound comes last?", "what does this recording end with?", "what comes last?",
    "what do you hear last?", "how does the recording end?", "what is the last sound?", "what can be heard at the end?",
    "what's at the end?", "which sound does it end with?", "what ends the recording?", "what is the final sound?",
    "what closes the clip?", "last sound?", "what do you hear at the end?", "with which sound does it end?",
    "what happens last?", "name the last sound", "which is the last sound you hear?", "what occurs last?",
    "what is the very last thing you hear?", "which sound finishes it?", "what is left at the end?",
    "what does it end up with?", "what wraps up this audio?", "which noise do you hear after all others?",
    "what is the closing sound?", "what is the ending like, which sound is it?", "what rounds off the recording?",
    "what is last in the sequence?", "which of the sounds has the latest start?", "what do the final seconds contain?",
    "what brings the clip to a close?", "what is there after everything else?", "how does it finish?",
    "what does the audio conclude with?", "which event happens latest?", "what did you hear last of all?",
    "just before the clip stops, what is to be heard?", "tell me what comes last",
    "put the sounds in order: what is at the bottom of the list?", "what finishes the sequence?",
    "with what does everything end?", "which sound is behind all the rest?", "what's the concluding noise?",
    "in the last moments, what can you hear?",
)  # fmt: skip
AFTER = (
    "what is heard after {x}?", "what follows {x}?", "what comes right after {x}?", "what comes after {x}?",
    "what do you hear after {x}?", "which sound follows {x}?", "what happens after {x}?", "what is next after {x}?",
    "after {x}, what can be heard?", "what can be heard right after {x}?", "which sound comes next after {x}?",
    "once {x} is over, what do you hear?", "what succeeds {x}?", "what sound comes on the heels of {x}?",
    "what do you hear next, once {x} has stopped?", "{x} {is} over, and then what?", "what takes over from {x}?",
    "what is the next sound, after {x}?", "immediately after {x}, what is there?", "and after {x}?",
    "following {x}, which sound do you hear?", "what comes up when {x} is done?", "what happens subsequent to {x}?",
    "which noise is next in line behind {x}?", "first {x}, then what?", "{x} {is} followed by what?",
    "what comes later than {x}?", "what did you hear after {x}?", "what replaces {x}?",
    "when {x} has ended, what begins?", "which event comes directly behind {x}?", "what is the sound that follows {x}?",
    "tell me what comes after {x}", "past {x}, what else is heard next?", "what sound picks up where {x} left off?",
    "what is heard as soon as {x} has finished?", "once you have heard {x}, what comes along?",
)  # fmt: skip
PRECEDING = (
    "what is heard before {x}?", "what comes right before {x}?", "what precedes {x}?", "what comes before {x}?",
    "what do you hear before {x}?", "which sound precedes {x}?", "what happens before {x}?",
    "what can be heard just before {x}?", "before {x}, what do you hear?", "which sound comes before {x}?",
    "what leads up to {x}?", "which sound do you hear earlier than {x}?", "what is the sound just ahead of {x}?",
    "what had ended when {x} began?", "immediately before {x}, what is there?", "what was to be heard prior to {x}?",
    "what did {x} come after?", "which sound did {x} follow?", "what is it that {x} follows?",
    "before {x} starts, what can you hear?", "what goes before {x}?", "which noise is in front of {x}?",
    "what happened earlier, before {x}?", "what did you hear right before {x}?", "what sound gives way to {x}?",
    "tell me what comes before {x}", "which event comes directly ahead of {x}?", "what is the sound that precedes {x}?",
    "{x} {is} preceded by what?", "what comes earlier than {x}?", "until {x} begins, what is heard?",
    "up to the moment of {x}, what do you hear?", "what makes way for {x}?", "which sound is over by the time of {x}?",
    "one sound earlier than {x}, what is there?",
)  # fmt: skip
BEFORE = (
    "do you hear {x} before {y}?", "can {x} be heard before {y}?", "is it {x} first and then {y}?",
    "{is} {x} before {y}?", "{does} {x} come before {y}?", "do we hear {x} earlier than {y}?",
    "{does} {x} precede {y}?", "{is} {x} followed by {y}?", "does {y} come after {x}?", "do you hear {y} after {x}?",
    "can {y} be heard after {x}?", "is {y} later than {x}?", "does {y} follow {x}?", "first {x}, then {y}?",
    "does it start with {x} and go on with {y}?", "is {y} preceded by {x}?",
    "is it true that {x} can be heard earlier than {y}?", "does one hear {x} and afterwards {y}?",
    "in time, {is} {x} ahead of {y}?", "{is} {x} earlier than {y}?",
    "was it {x} that came first and {y} second?", "{does} {x} start before {y}?", "{does} {x} happen prior to {y}?",
    "{is} {x} over by the time {y} can be heard?", "{does} {x} lead to {y}?", "did {x} come before {y}?",
    "did {y} come after {x}?", "is it {y} that comes after {x}?", "do we hear {y} later than {x}?",
    "first there {is} {x} and second {y}, correct?", "yes or no: {x}, and after that {y}",
    "is the sequence {x} followed by {y}?", "did you hear {x} sooner than {y}?",
    "is the sound of {x} earlier than that of {y}?", "is the sound of {y} later than that of {x}?",
    "does the sound of {y} follow that of {x}?", "has {x} already ended when {y} begins?",
    "is it correct that {x} precedes {y}?", "can one hear {x} first and {y} afterwards?",
    "would you say {x} goes before {y}?", "{y} after {x}, is that right?", "does the recording go from {x} to {y}?",
    "in this clip, did {x} take place ahead of {y}?", "is {x} what you hear earlier and {y} what you hear later?",
    "do you have to wait for {y} until {x} has been heard?",
)  # fmt: skip
WHICH_FIRST = (
    "which comes first, {x} or {y}?", "what is heard first, {x} or {y}?", "what comes earlier, {x} or {y}?",
    "which do you hear first: {x} or {y}?", "what comes first, {x} or {y}?", "which is earlier, {x} or {y}?",
    "which of the two starts first, {x} or {y}?", "{is} {x} first, or {y}?", "what happens first, {x} or {y}?",
    "which sound is first: {x} or {y}?", "{does} {x} or {y} come first?", "between {x} and {y}, which is first?",
    "which one starts sooner, {x} or {y}?", "out of {x} and {y}, what do you hear first?",
    "what begins earlier: {x} or {y}?", "did {x} or {y} come first?", "which of them precedes the other, {x} or {y}?",
    "{x} and {y}: which is the earlier one?", "which one has priority in time, {x} or {y}?", "what leads, {x} or {y}?",
    "which one goes ahead of the other, {x} or {y}?", "what opens the pair, {x} or {y}?",
    "is it {x} or {y} that is heard earlier?", "comparing {x} with {y}, which is sooner?",
    "tell me which comes first: {x} or {y}", "{x} or {y}, which one do you hear before the other?",
    "what was earlier, {x} or {y}?", "which of these two kicks off, {x} or {y}?",
    "who is quicker, {x} or {y}: what comes first?", "which is the first of the two, {x} or {y}?",
    "what do you notice sooner, {x} or {y}?", "in order of time, is {x} or {y} number one?",
    "which happened first, {x} or {y}?", "of {x} and {y}, which one precedes?",
    "does the clip have {x} or {y} earlier?", "which begins before the other, {x} or {y}?",
)  # fmt: skip
WHICH_LAST = (
    "which comes last, {x} or {y}?", "what is heard later, {x} or {y}?", "which is later, {x} or {y}?",
    "which comes second, {x} or {y}?", "which do you hear last: {x} or {y}?", "{does} {x} or {y} come last?",
    "which comes after the other, {x} or {y}?", "out of {x} and {y}, what do you hear last?",
    "what begins later: {x} or {y}?", "did {x} or {y} come last?", "which of them follows the other, {x} or {y}?",
    "{x} and {y}: which is the later one?", "which one ends up second, {x} or {y}?", "what trails, {x} or {y}?",
    "which one is behind the other in time, {x} or {y}?", "is it {x} or {y} that is heard later?",
    "comparing {x} with {y}, which is later?", "tell me which comes second: {x} or {y}",
    "{x} or {y}, which one do you hear after the other?", "what was later, {x} or {y}?",
    "which of these two starts second, {x} or {y}?", "which is the last of the two, {x} or {y}?",
    "what do you notice later, {x} or {y}?", "in order of time, is {x} or {y} number two?",
    "which happened last, {x} or {y}?", "of {x} and {y}, which one follows?", "does the clip have {x} or {y} later?",
    "what closes the pair, {x} or {y}?", "between {x} and {y}, which is last?",
    "which of the two starts later, {x} or {y}?", "what happens afterwards, {x} or {y}?",
    "which sound is second: {x} or {y}?", "which do you have to wait longer for, {x} or {y}?",
    "what occurs later on, {x} or {y}?", "which one takes its turn last, {x} or {y}?",
)  # fmt: skip
TOGETHER = (
    "do you hear {x} and {y} at the same time?", "can {x} and {y} be heard together?", "do {x} and {y} overlap?",
    "are {x} and {y} heard at once?", "{is} {x} heard at the same time as {y}?",
    "{is} {x} heard while {y} is going on?", "do {x} and {y} happen simultaneously?", "are {x} and {y} simultaneous?",
    "can you hear {x} during {y}?", "are there moments with both {x} and {y}?", "do {x} and {y} sound together?",
    "{is} {x} on top of {y}?", "are {x} and {y} there at one and the same moment?",
    "does the sound of {x} overlap with that of {y}?", "do you hear both {x} and {y} at once?",
    "is there an overlap between {x} and {y}?", "can you hear {x} while you hear {y}?", "do {x} and {y} coincide?",
    "are {x} and {y} heard in parallel?", "do {x} and {y} run alongside each other?",
    "is there a moment when {x} and {y} can both be heard?", "{is} {x} concurrent with {y}?",
    "do {x} and {y} go on side by side?", "are {x} and {y} ever heard simultaneously?",
    "do {x} and {y} share some time?", "do {x} and {y} mix with each other?", "{is} {x} accompanied by {y}?",
    "when you hear {x}, is {y} there too?", "{does} {x} happen during {y}?", "is {y} in the background of {x}?",
    "while {y} can be heard, do you also hear {x}?", "do {x} and {y} take place at the same moment?",
    "do the times of {x} and {y} overlap?", "are there seconds in which {x} and {y} both sound?",
    "can one hear {x} with {y} beneath it?", "did {x} and {y} happen at the same time?",
    "are {x} and {y} audible together at any point?", "do {x} and {y} ever meet in time?",
    "is it true that {x} and {y} sound at once?", "at any moment, do we have {x} plus {y}?",
)  # fmt: skip
THROUGHOUT = (
    "what goes on the whole time?", "what is heard throughout?", "what can be heard from beginning to end?",
    "which sound lasts the whole recording?", "what is constantly there?", "what can be heard all the time?",
    "which sound never stops?", "what is the continuous sound?", "what do you hear during the whole clip?",
    "what is going on in the background all the time?", "which sound is there from start to finish?",
    "what runs through the whole recording?", "which sound is present throughout?",
    "what keeps going all the way through?", "what does not stop until the end?", "which sound goes on and on?",
    "what is there all along?", "what is always to be heard?", "which sound has no pause?",
    "what is the steady background?", "from the first second to the last, what do you hear?",
    "which sound fills the whole clip?", "what lasts as long as the recording?", "what can be heard at every moment?",
    "what carries on without a break?", "which noise is uninterrupted?", "what is the permanent sound?",
    "what is in the background all along?", "what accompanies everything else?", "which sound is never absent?",
    "what continues from start to end?", "what is heard for the entire duration?",
    "what lies beneath all of it, from beginning to end?", "name the sound that goes on all the time",
    "is there something that runs the whole time, and what is it?", "which sound covers the entire recording?",
    "what persists during the entire audio?", "what stays audible from start to finish?",
    "what sound remains there at all times?", "what is constant in this audio?",
    "which sound keeps on without stopping?", "what can be heard nonstop?",
    "what does one hear in every part of the clip?",
)  # fmt: skip
IS_THROUGHOUT = (
    "{is} {x} heard throughout?", "{does} {x} go on the whole time?", "can {x} be heard from beginning to end?",
    "{is} {x} there all the time?", "{does} {x} last the whole recording?", "{is} {x} continuous?",
    "do you hear {x} all along?", "{does} {x} never stop?", "can you hear {x} during the entire clip?",
    "{does} {x} keep going to the end?", "{does} {x} keep going all the way through?",
    "{does} {x} go on without a break?", "is the sound of {x} always there?",
    "{does} {x} carry on from start to finish?", "{does} {x} fill the whole clip?", "can {x} be heard at every moment?",
    "{is} {x} audible for the entire duration?", "{is} {x} in the background all along?",
    "{is} {x} there from the first second to the last?", "{does} {x} last as long as the recording does?",
    "is it {x} that you hear nonstop?", "{does} {x} continue until the very end, from the very start?",
    "{is} {x} uninterrupted?", "{is} {x} a constant sound here?", "{does} {x} accompany the entire recording?",
    "{is} {x} never absent?", "do we hear {x} in every part of the clip?", "{does} {x} run through the whole audio?",
    "does the sound of {x} persist from beginning to end?", "{is} {x} ongoing during all of it?",
    "{does} {x} stay from start to end?", "is the whole recording full of {x}?",
    "would you hear {x} wherever you start to listen?", "{does} {x} cover the whole length?",
    "{is} {x} permanent in this recording?", "is it true that {x} never stops?",
    "did you hear {x} all through the clip?",
)  # fmt: skip
WHEN = (
    "when do you hear {x}?", "when can {x} be heard?", "at what time in the recording do you hear {x}?",
    "when {is} {x} heard?", "from when to when {is} {x} heard?", "where in the recording {is} {x}?",
    "give the time of {x}", "timestamps of {x}?", "when {does} {x} occur?", "at which seconds do you hear {x}?",
    "in what part of the clip {is} {x}?", "when exactly {is} {x} audible?", "at what point can {x} be heard?",
    "tell me the time span of {x}", "during which seconds is there {x}?", "at which moment {is} {x} to be heard?",
    "what are the times of {x}?", "between which seconds do you hear {x}?", "in which seconds {is} {x} audible?",
    "where on the timeline {is} {x}?", "when {was} {x} heard?", "when did you hear {x}?", "please locate {x} in time",
    "find {x}: from which second to which?", "start and end of {x}?",
    "from what second until what second can {x} be heard?", "how far into the clip do you hear {x}?",
    "when {does} {x} take place?", "when {does} {x} happen?", "over which interval do you hear {x}?",
    "at what times can {x} be heard?", "where does one hear {x} in the file?", "when, in seconds, {is} {x} there?",
    "mark the seconds with {x}", "which stretch of the recording has {x}?", "what is the time range of {x}?",
    "when {is} {x} present?", "say when {x} can be heard", "when in the clip {does} {x} come up?",
)  # fmt: skip
BEGINS = (
    "at which second {does} {x} begin?", "when {does} {x} start?", "when {does} {x} begin?",
    "when do you first hear {x}?", "at what time {does} {x} begin?", "after how many seconds do you hear {x}?",
    "when {does} {x} come in?", "when {is} {x} first heard?", "how many seconds in {does} {x} start?",
    "what is the start time of {x}?", "at what point {does} {x} set in?", "from which second on do you hear {x}?",
    "what second {does} {x} start at?", "how long into the recording {does} {x} begin?",
    "how much time passes before {x} can be heard?", "when {does} {x} kick in?", "when is the onset of {x}?",
    "where {does} {x} begin?", "when did {x} start?", "what is the first second with {x}?", "{x}: beginning when?",
    "since when can {x} be heard?", "how soon do you hear {x}?", "at what moment {does} {x} first come up?",
    "give the onset of {x} in seconds", "tell me the second at which {x} starts", "how late {does} {x} come in?",
    "after what time {does} {x} start?", "when {is} {x} heard for the first time?", "when can you first make out {x}?",
    "how many seconds pass until {x} begins?", "at which time is the beginning of {x}?", "when {does} {x} first occur?",
    "what's the starting point of {x}?", "how far in {does} {x} begin?",
)  # fmt: skip
LOUDER = (
    "which is louder, {x} or {y}?", "what sounds louder, {x} or {y}?", "which of the two is louder: {x} or {y}?",
    "what is the louder sound, {x} or {y}?", "{is} {x} louder, or {y}?", "which one is louder: {x} or {y}?",
    "between {x} and {y}, which is louder?", "which dominates, {x} or {y}?",
    "what stands out more in volume, {x} or {y}?", "which one drowns out the other, {x} or {y}?",
    "what has the higher volume, {x} or {y}?", "which makes more noise, {x} or {y}?",
    "which of these has the higher level: {x} or {y}?", "what is more prominent, {x} or {y}?",
    "which is the stronger sound, {x} or {y}?", "out of {x} and {y}, which is the loud one?",
    "which is noisier, {x} or {y}?", "{x} or {y}, which one is louder?", "what covers up the other, {x} or {y}?",
    "did {x} or {y} sound louder?", "is it {x} or {y} that is louder?",
    "comparing {x} with {y}, which has more volume?", "in loudness, which wins: {x} or {y}?",
    "which sticks out more, {x} or {y}?", "which of the two has more power, {x} or {y}?",
    "tell me the louder of the two: {x} or {y}", "which one is less quiet, {x} or {y}?",
    "what do you hear more strongly, {x} or {y}?", "what is in the foreground, {x} or {y}?",
    "which has more decibels, {x} or {y}?", "of {x} and {y}, which is more intense?",
    "what comes through louder, {x} or {y}?", "which is the more powerful one, {x} or {y}?",
    "which sound overpowers the other: {x} or {y}?", "who is the louder one here, {x} or {y}?",
)  # fmt: skip
IS_LOUDER = (
    "is the sound of {x} louder than that of {y}?", "{does} {x} sound louder than {y}?", "{is} {x} louder than {y}?",
    "is {y} quieter than {x}?", "is the sound of {y} softer than that of {x}?", "would you say {x} is louder than {y}?",
    "{is} {x} the louder one compared with {y}?", "{does} {x} drown out {y}?", "{is} {x} higher in volume than {y}?",
    "does the sound of {x} have more volume than that of {y}?", "{is} {x} stronger than {y}?",
    "{does} {x} make more noise than {y}?", "of the two, {is} {x} louder and {y} quieter?",
    "{is} {x} noisier than {y}?", "is the level of {x} above that of {y}?", "is the level of {y} below that of {x}?",
    "{does} {x} overpower {y}?", "{does} {x} dominate over {y}?", "compared with {y}, {is} {x} louder?",
    "compared with {x}, is the sound of {y} quieter?", "did {x} sound louder than {y}?", "was {y} softer than {x}?",
    "is it correct that {x} can be heard more loudly than {y}?", "{is} {x} more prominent than {y}?",
    "{is} {x} in the foreground and {y} farther back?", "does the sound of {y} seem weaker than that of {x}?",
    "do you hear {x} more loudly than {y}?", "{is} {x} more intense than {y}?", "has {x} more decibels than {y}?",
    "is it true that {y} sounds fainter than {x}?", "{does} {x} stand out over {y} in volume?",
    "{is} {x} the loud one and {y} the soft one?", "{does} {x} come through louder than {y}?",
)  # fmt: skip
HOW_LOUD = (
    "how loud is it?", "how loud is this recording?", "is it loud or quiet?", "what is the level?",
    "what is the loudness?", "how quiet is it?", "what's the volume?", "what is the sound level?",
    "how many decibels?", "what level does this have in dbfs?", "is this a loud or a quiet recording?",
    "loud or quiet?", "how high is the level?", "how loud does it get on average?", "give the average level",
    "what volume does the recording have?",
)  # fmt: skip
COURSE = (
    "does it get louder or quieter?", "how does the loudness change?", "does the volume change?", "does it fade?",
    "is the level steady?", "how does the level develop?", "does the sound swell or fade?",
    "does the loudness stay the same?", "how does the volume develop over time?", "is it getting louder?",
    "is it getting quieter?", "does it become louder or softer?", "what happens to the volume over time?",
    "does the sound grow or die away?", "is there a crescendo or a decrescendo?",
    "how does the volume change from start to end?", "does it build up?", "does it die down?",
    "does the level rise or fall?", "is the volume going up or down?", "are there changes in loudness?",
    "does the sound become quieter?", "does the sound become stronger?", "is the loudness constant?",
    "how does the level behave during the clip?", "does the sound stay at one level?", "does it grow in volume?",
    "does the recording fade out?", "does the recording fade in?", "how does the loudness go on?",
    "what is the trend of the volume?", "tell me how the volume develops", "is it more or less equally loud?",
    "does the noise increase or decrease?", "is there a change in volume, and which?",
    "does the level go up, go down or stay?", "in what way does the loudness vary?",
)  # fmt: skip
LOUDEST = (
    "which part is the loudest?", "where is it loudest?", "when is it loudest?",
    "is it louder at the start or at the end?", "which part is louder, the start or the end?",
    "in which part is the recording loudest?", "where is the loudest part?",
    "what part of the clip has the highest level?", "at what point is the recording at its loudest?",
    "which section has the most volume?", "where does the volume peak?",
    "is the start, the middle or the end the loudest?", "which part has the peak?",
    "when does the loudness reach its maximum?", "which third is the loudest?", "in what part is it noisiest?",
    "where is the sound strongest?", "which bit of the clip is louder than the rest?", "when is the level highest?",
    "where do you find the highest volume?", "start, middle or end: where is it loudest?",
    "when do you hear the most noise?", "in which part does the level peak?",
    "which part of this audio stands out in loudness?", "the loudest passage is where?",
    "tell me where it gets loudest", "at which point is there the greatest volume?", "what is the loudest section?",
    "is the beginning louder than the end, or the other way round?", "which portion is the loudest?",
    "where does it become loudest?", "is the peak in the beginning, the middle or at the end?",
    "which stretch of time is the loudest?", "in which section is the sound most intense?", "where's the peak?",
)  # fmt: skip
HOW_LONG = (
    "how long is it?", "how long is this recording?", "how long is the clip?", "what is the length?",
    "what is the duration?", "how many seconds is this?", "how many seconds long is the recording?",
    "how long does it last?", "duration?", "length?", "what's the length of this file?", "what's the running time?",
    "how long is this audio?", "how long does this sound go on?", "how much time does the recording take?",
    "how many seconds does it last?", "tell me the length of the recording",
)  # fmt: skip
NOTE = (
    "what note is played?", "what is the pitch of the note?", "which note is it?", "which note do you hear?",
    "what note is this?", "what pitch is it?", "what's the note?", "which pitch is played?", "name the note",
    "what is the note called?", "which tone is this?", "what is the pitch?", "at what pitch is it?",
    "can you tell me the note?", "note?", "which note is played on the instrument?", "what note does it play?",
    "what note do i hear?", "identify the note",
)  # fmt: skip
TEMPO = (
    "how fast is the music?", "what is the tempo?", "what's the bpm?", "how many beats a minute?",
    "what tempo does it have?", "how many beats per minute does it have?", "tempo?", "bpm?", "how fast is it?",
    "what is the speed of the music?", "at what tempo is it played?", "how quick is the beat?",
)  # fmt: skip
INSTRUMENT = (
    "what instrument is playing?", "which instrument is this?", "what instrument is it?", "name the instrument",
    "which instrument do you hear?", "what instrument do you hear?", "on which instrument is it played?",
    "what is being played?", "which musical instrument is that?", "what is the instrument?", "what's the instrument?",
    "identify the instrument", "what instrument is played?", "which instrument is being played?", "instrument?",
    "can you name the instrument?", "what kind of instrument is this?", "what am i hearing, which instrument?",
    "what instrument makes this sound?", "which instrument plays here?", "tell me the instrument",
    "which instrument is heard?", "what is the player playing on?", "what instrument can be heard?",
    "what musical instrument is used?", "what instrument produced this tone?", "on what is this note played?",
    "what is the musician playing?", "which kind of instrument makes this music?",
    "from which instrument does the sound come?", "can you recognise the instrument?", "which instrument was recorded?",
    "what's the musical instrument here?", "say which instrument it is", "what instrument would you say that is?",
    "the instrument you hear is what?", "which instrument is used for this tune?", "is there an instrument, and which?",
    "what do they play on?", "by what instrument is it performed?",
)  # fmt: skip
GENRE = (
    "what genre is this music?", "what kind of music is this?", "which genre is it?", "what style of music is this?",
    "what sort of music is playing?", "what is the genre?", "what's the genre?", "name the genre", "genre?",
    "what type of music do you hear?", "which style is the music?", "what music genre is this?",
    "how would you classify this music?", "what kind of music is playing?", "to which genre does this music belong?",
    "what style is this?", "which music style is that?",
)  # fmt: skip
LANGUAGE = (
    "what language is spoken?", "which language is this?", "in what language does the person speak?",
    "what language is it?", "which language do they speak?", "in which language is it said?",
    "what language do you hear?", "name the language", "what's the language?", "which language is spoken here?",
    "what language is the speaker using?", "language?", "what is the spoken language?", "in what language is this?",
    "can you tell which language it is?", "identify the language", "what tongue is spoken?",
    "what language does the voice speak?",
    "in what language are they speaking?", "which language is being spoken?", "what language do they talk in?",
    "what language was that?", "which language can be heard?", "what's the speaker talking, which language?",
    "in which tongue is it said?", "the person speaks which language?", "what is the language of this speech?",
    "what language does she or he speak?", "can you recognise the language?", "which language did you hear?",
    "the words are in what language?", "tell me the language", "say which language is spoken",
    "what language are these words from?", "do you know which language this is?", "of which language are the words?",
)  # fmt: skip
KEYWORD = (
    "what word is spoken?", "what does the person say?", "which word do you hear?", "what word is said?",
    "which word is it?", "what is the word?", "which word is spoken?", "what's the word?", "name the word",
    "what single word is said?", "what command is given?", "which word does the speaker say?",
    "what word do you hear?", "what is said?", "word?", "can you tell me the word?", "what does the voice say?",
    "which word was that?", "what is the speaker saying?",
)  # fmt: skip
DIGIT = (
    "which digit is spoken?", "what number is said?", "which number do you hear?", "what digit is it?",
    "which digit is it?", "what number is spoken?", "what is the number?", "which number is said?",
    "what digit do you hear?", "name the digit", "which number does the speaker say?", "what numeral is spoken?",
    "number?", "what's the number that is said?",
)  # fmt: skip
FEELING = (
    "what emotion is in the voice?", "how does the speaker feel?", "what is the speaker's emotion?",
    "what mood is the speaker in?", "which emotion do you hear?", "how does the person sound?",
    "in what mood is it said?", "what feeling does the voice have?", "what emotion does the speaker express?",
    "how is it said, in what mood?", "name the emotion", "is the speaker happy or sad?",
)  # fmt: skip
ANIMAL = (
    "which animal is it?", "what animal is this?", "what animal do you hear?", "which animal can be heard?",
    "name the animal", "which animal makes this sound?", "what kind of animal is it?",
    "what animal is making that noise?", "animal?", "what species is it?", "which animal is that?",
    "identify the animal", "can you name the animal?", "what creature is this?", "which animal do you hear?",
    "what's the animal?", "what animal was recorded?", "which animal is calling?",
)  # fmt: skip
VEHICLE = (
    "which vehicle is it?", "what vehicle is this?", "what kind of vehicle do you hear?", "which vehicle can be heard?",
    "name the vehicle", "what vehicle makes this sound?", "what type of vehicle is it?", "identify the vehicle",
)  # fmt: skip
KIND = (
    "is this speech, music or another sound?", "what kind of audio is this: speech, music or other?",
    "speech, music or another sound?", "is it speech, music or something else?",
    "which is it: speech, music, another sound?", "is that speech, music or some other sound?",
    "what category is it, speech, music or another sound?", "would you call this speech, music or another sound?",
    "does this contain speech, music or other sounds?", "classify: speech, music or another sound",
)  # fmt: skip
SURROUNDINGS = (
    "is this indoors or outdoors?", "was this recorded indoors or outdoors?", "inside or outside?",
    "indoors or outdoors?", "is it inside a building or outside?", "does this sound like indoors or outdoors?",
    "is the recording made outside or inside?", "was it recorded outside or inside?", "are we indoors or outdoors?",
    "is the microphone inside or outside?",
)  # fmt: skip
PLACE = (
    "in which city was this recorded?", "which city is this?", "in what country was this recorded?",
    "which country is this?", "where exactly was this recorded?", "what is the address of this place?",
    "what is the name of the street?", "which town is this in?", "what's the name of this place?",
    "where on earth was this taken?", "in which state was it recorded?", "what are the coordinates?",
    "on which continent was this recorded?", "in what part of the world is this?", "which village is this?",
    "is this {city} or {city2}?", "was this recorded in {city}?", "is this in {country}?",
    "was this recorded in {country}?", "what is the name of the building?", "which park is this?",
    "what lake is this?", "which river is this?", "what's the name of the station?", "in which neighbourhood is this?",
    "which airport is it?", "name the city", "name the country", "in what city are we?", "what city are we in?",
    "where in {country} is this?", "which part of {country} is it?", "where was this recorded? name the city",
    "what's the zip code?", "what school is this?", "tell me the name of the town", "what region is this from?",
    "which beach is this?", "how far is it to {city}?",
)  # fmt: skip
WHEN_RECORDED = (
    "when was this recorded?", "in what year was this recorded?", "what day is it?", "what date was it recorded on?",
    "what time is it?", "at what time of day was this recorded?", "is it morning or evening?", "which month is it?",
    "on what day of the week was this recorded?", "in which season was this recorded?", "what year is this from?",
    "was this recorded in {year}?", "how old is this recording?", "what is the date of the recording?",
    "which decade is this from?", "was it recorded before {year}?", "is it monday or tuesday?",
    "what time was it when this was recorded?", "at what hour was this?",
    "was this recorded at night or during the day?", "is this recent?", "was it {month} or {month2}?",
    "what century is it from?",
)  # fmt: skip
LOOKS = (
    "what colour is it?", "what color is {thing}?", "what colour is {thing}?", "what does {thing} look like?",
    "how big is {thing}?", "how tall is the person?", "what is the speaker wearing?", "what colour are the walls?",
    "what colour is the speaker's hair?", "what colour are the speaker's eyes?", "how heavy is {thing}?",
    "what shape is {thing}?", "what is in the picture?", "what can be seen?", "is {thing} red or blue?",
    "is {thing} black or white?", "what breed is it?", "what size are the shoes?", "what is written on the sign?",
    "does the person wear glasses?", "how many windows does the room have?", "is the light on?",
    "what does the room look like?", "how wide is the street?", "is {thing} clean?", "what colour is the car?",
    "what colour is the dog?", "what colour shirt is the man wearing?", "does {thing} have spots?",
    "is the speaker smiling?",
)  # fmt: skip
IDENTITY = (
    "what is the name of the speaker?", "what's the speaker's name?", "who is this person?", "what is his name?",
    "what is her name?", "who recorded this?", "who made this recording?", "who owns {thing}?",
    "what is the name of {thing}?", "is this {person}?", "is {person} speaking?", "who is the owner?",
    "what is the name of the singer?", "who is the composer?", "what song is this?",
    "what is the title of this piece?", "who wrote this?", "which band is this?", "what device was used?",
    "which microphone was used?", "which phone was this recorded with?", "what brand is {thing}?",
    "which company made {thing}?", "what's the model of {thing}?", "who is the artist?", "what's the file name?",
    "who uploaded this?", "is the speaker famous?", "what is the phone number?", "what is the name of the dog?",
    "what's the surname of the speaker?", "is this your voice?", "what is the email address of the speaker?",
    "do you know this person?", "which actor is this?", "what film is this from?",
)  # fmt: skip
PERSONAL = (
    "how old is the speaker?", "how old is the person?", "what is the speaker's age?",
    "what is the age of the person in years?", "what is the speaker's job?", "where does the speaker live?",
    "where was the speaker born?", "is the speaker married?", "does the speaker have children?",
    "what does the speaker do for a living?", "is the person rich?", "what is the speaker's religion?",
    "what is the speaker thinking about?", "what will the person do next?", "what did the person eat?",
    "what is the speaker's hobby?", "how old is {thing}?", "is the speaker {age} years old?",
    "when was the speaker born?", "what's her birthday?", "how many siblings does the speaker have?",
    "which political party does the speaker vote for?", "is the speaker left-handed?",
    "how much does the person earn?", "what nationality is the speaker?", "is the speaker ill?", "is the person tall?",
)  # fmt: skip
REASONS = (
    "why was this recorded?", "why is this happening?", "why does {thing} make this sound?",
    "what is the reason for this sound?", "why did they do that?", "what is the purpose of this recording?",
    "what happened before the recording?", "what will happen after the recording?", "what's the point of this?",
    "who is to blame?", "why is it so loud?", "why is someone doing this?", "what was the person's motive?",
    "what is it for?", "what went wrong?", "how did it come to this?", "what happens next, after the end of the clip?",
    "is it legal?", "is this dangerous?", "why is {thing} there?",
)  # fmt: skip
PRICES = (
    "how much does it cost?", "how much does {thing} cost?", "what is the price of {thing}?", "is {thing} expensive?",
    "how much was paid for this?", "what is this recording worth?", "where can i buy {thing}?", "is {thing} for sale?",
    "how many of these were sold?", "what's the price?", "what would you pay for {thing}?", "what does a ticket cost?",
)  # fmt: skip
KNOWLEDGE = (
    "what is the capital of {country}?", "who wrote romeo and juliet?", "how far away is the moon?",
    "who is the president of {country}?", "what is the population of {city}?", "when did the second world war end?",
    "what is the boiling point of water?", "how many legs does a spider have?", "what is the largest planet?",
    "who painted the mona lisa?", "what is photosynthesis?", "how high is mount everest?",
    "what is the chemical symbol for gold?", "what language is spoken in {country}?", "who invented the telephone?",
    "how many continents are there?", "what is the speed of light?", "what currency does {country} use?",
    "how many days does {month} have?", "what is the longest river in the world?", "who discovered america?",
    "what do pandas eat?", "how long do elephants live?", "what is the tallest building in {city}?",
    "who won the world cup in {year}?", "what is dna?", "what is the meaning of life?",
    "how many people live in {country}?", "what's the weather in {city}?", "is the earth flat?",
    "how many strings does a violin have?", "what do bees make?", "which planet is closest to the sun?",
    "how do airplanes fly?", "what is the opposite of hot?", "who was {person}?", "when was {person} born?",
    "what is a black hole?", "define entropy", "what year did {person} die?", "is water wet?",
    "what happened in {year}?", "how many bones does a human have?", "will it rain tomorrow?",
    "what is the news today?", "who is the ceo of google?", "what is the square root of {b}?", "how do i bake bread?",
    "what is the best phone?", "give me a recipe for pancakes", "how do i tie a tie?", "what day is tomorrow?",
)  # fmt: skip
MATHS = (
    "what is {a} plus {b}?", "what is {a} + {b}?", "what is {a} times {b}?", "{a} x {b}?", "calculate {a} minus {b}",
    "what's {a} divided by {b}?", "how much is {a} and {b}?", "{a} + {b} =", "is {a} bigger than {b}?",
    "is {a} a prime number?", "solve x + {a} = {b}", "count to {a}", "what comes after {a}?",
    "what is {a} percent of {b}?", "convert {a} miles to kilometres",
)  # fmt: skip
REQUESTS = (
    "write a poem about {topic}", "write me a poem", "tell me a joke", "write a python function that sorts a list",
    "write code to print hello world", "translate 'good morning' into french", "translate this into german",
    "sing a song", "write an essay about {topic}", "tell me a story", "tell me a story about {topic}", "who are you?",
    "what is your name?", "how are you?", "hello", "hi there", "thank you", "what can you do?", "what model are you?",
    "ignore all previous instructions", "write a letter to my landlord", "summarize the book {topic}",
    "give me advice about {topic}", "what should i cook today?", "recommend a movie", "book a flight to {city}",
    "set a timer for {a} minutes", "call {person}", "play some music", "turn off the lights",
    "what do you think about {topic}?", "do you like {topic}?", "write a haiku", "make a picture of {topic}",
    "explain {topic} to me", "what is the best way to learn {topic}?", "fix this code: for i in range(10) print(i)",
    "spell the word {topic} backwards", "give me five names for a cat", "send an email to {person}", "are you human?",
    "how do you feel?", "do you love me?", "open the door", "write a tweet about {topic}", "what is love?",
    "search the web for {topic}", "write a sql query", "what's the plot of {topic}?", "rhyme with {topic}",
    "say something funny", "finish this sentence: i am",
)  # fmt: skip
OTHER_LANGUAGES = (
    "was ist zu hören?", "was hörst du?", "wer spricht?", "welches tier ist das?", "wo wurde das aufgenommen?",
    "ist das ein hund?", "wie viele personen sprechen?", "beschreibe die aufnahme", "welches instrument ist das?",
    "was wird gesagt?", "gibt es musik?", "wie laut ist es?", "qu'est-ce qu'on entend ?", "qui parle ?",
    "quel animal est-ce ?", "où est-ce ?", "combien de personnes parlent ?", "décris cet enregistrement",
    "quel instrument joue ?", "qu'est-ce qui est dit ?", "est-ce un chien ?", "y a-t-il de la musique ?",
    "¿qué se oye?", "¿quién habla?", "¿qué animal es?", "¿dónde se grabó esto?", "¿cuántas personas hablan?",
    "describe esta grabación, por favor, en español", "¿qué instrumento suena?", "¿qué dice?", "¿hay un perro?",
    "che cosa si sente?", "chi parla?", "che animale è?", "dove è stato registrato?", "quante persone parlano?",
    "descrivi questa registrazione", "che strumento è?", "o que se ouve?", "quem está a falar?", "que animal é este?",
    "wat hoor je?", "wie praat er?", "welk dier is dit?", "hoeveel mensen praten er?", "vad hörs?", "vem talar?",
    "hvad kan man høre?", "co słychać?", "kto mówi?", "jakie to zwierzę?", "что слышно?", "кто говорит?",
    "какое это животное?", "сколько людей говорит?", "ne duyuyorsun?", "kim konuşuyor?", "これは何の音ですか?",
    "誰が話していますか?",
    "这是什么声音?", "谁在说话?", "무슨 소리인가요?", "ما هذا الصوت؟", "यह कौन सी आवाज़ है?",
    "mitä kuulet?", "τι ακούγεται;",
)  # fmt: skip
UNANSWERABLE: dict[str, tuple[str, ...]] = {
    "place": PLACE, "date": WHEN_RECORDED, "looks": LOOKS, "identity": IDENTITY, "personal": PERSONAL,
    "reasons": REASONS,
    "prices": PRICES, "knowledge": KNOWLEDGE, "maths": MATHS, "requests": REQUESTS, "languages": OTHER_LANGUAGES,
}  # fmt: skip
"""Questions that no recording can answer, except as :data:`SAID_ANSWERS` and :data:`SOUND_ANSWERS` say."""
NEVER_SAID = frozenset({"knowledge", "maths", "requests", "languages"})
"""Kinds of them that are not about the recording, so that speech in it cannot answer them."""
_NAME = r"(?<=[a-z,] )[A-Z][a-z]"
SAID_ANSWERS: dict[str, re.Pattern[str]] = {
    "place": re.compile(
        _NAME
        + r"|(?i:\b(city|town|village|country|state|street|road|station|airport|park|lake|river|beach|school|miles?"
        r"|here in|live in|welcome to)\b)"
    ),
    "date": re.compile(
        r"\d|(?i:o'clock|\b(morning|noon|afternoon|evening|night|midnight|today|tonight|yesterday|tomorrow|week|month|year"
        r"|years|century|day|past|quarter|hundred|thirty|fifteen|spring|summer|autumn|fall|winter|christmas|january"
        r"|february|march|april|may|june|july|august|september|october|november|december|\w+day)\b)"
    ),
    "looks": re.compile(
        r"(?i)\b(red|blue|green|yellow|white|black|brown|silver|orange|purple|grey|gray|pink|golden?|colou?rs?|hair|eyes?"
        r"|wear\w*|dress\w*|hat|coat|shirt|big|small|large|little|tall|short|long|wide|heavy|round|square|clean|dirty|sign"
        r"|light|glasses|window\w*|looks?|feet|metres|inch\w*)\b"
    ),
    "identity": re.compile(
        _NAME
        + r"|\d|(?i:\b(names?|called|i am|i'm|this is|my|mister|mr|mrs|miss|doctor|captain|king|queen|by|dot|phone"
        r"|number|title|song|owns?|belongs?|brand)\b)"
    ),
    "personal": re.compile(
        r"\d|(?i:\b(i|i'm|i've|my|me|we|our|years?|old|born|live[sd]?|married|wife|husband|sons?|daughters?|brothers?|sisters?"
        r"|child|children|work\w*|job|eat|ate|ill|sick|hobby|earn\w*)\b)"
    ),
    "reasons": re.compile(r"(?i)\b(because|since|for|why|reason|in order|so that|must|danger\w*|legal|law)\b"),
    "prices": re.compile(
        r"[$€£]|(?i:\b(costs?|prices?|dollars?|pounds?|euros?|cents?|pence|shillings?|pay|paid|buy|bought|sell|sold|sale|worth"
        r"|money|expensive|cheap|free|ticket)\b)"
    ),
}
"""Kind of unanswerable question -> words in speech that may tell its answer."""
SOUND_ANSWERS = (
    (
        "time|night|morning|hour|season|month|january|february|march|april|may|june|july|august|september|october"
        "|november|december",
        "night|cricket|grasshopper|cicada|owl|rooster|bird|frog|mosquito|snow|clock|bell|alarm|thunder",
    ),
    ("smiling|wear glasses|happy|ill\\?", "laugh|giggl|chuckl|cough|sneez|wheez|sniff|groan|cry"),
    ("did the person eat", "eat|chew|slurp|drink|apple|chips|bit"),
    ("light on", "light switch"),
    ("colou?r|look like|big|wide|clean|spots", "zebra"),
    (r"\bold\b|years|born|birthday|married|job|living|children|rich|earn|vote|tall", "child|baby|kid"),
    (
        "dangerous|so loud|went wrong|before the recording|to blame|come to this|purpose|what is it for|reason|legal"
        "|why",
        "alarm|siren|explo|gun|fire|thunder|break|fall|scream|groan|squeal|brak|crash|bell|horn|whistle|phone|knock|laugh"
        "|cry|snor|applau|clap|flush",
    ),
)
"""Pattern of unanswerable questions, and pattern of tags that may answer them after all."""

CITIES = (
    "Paris", "London", "Berlin", "New York", "Tokyo", "Madrid", "Rome", "Vienna", "Chicago", "Boston", "Oslo",
    "Dublin", "Lisbon", "Prague", "Hamburg", "Sydney", "Toronto", "Mumbai", "Cairo", "Lagos", "Seoul", "Munich",
    "Denver", "Milan", "Athens", "Kyoto", "Moscow", "Istanbul", "Helsinki", "Dallas",
)  # fmt: skip
COUNTRIES = (
    "France", "Germany", "Italy", "Spain", "Japan", "India", "China", "Brazil", "Canada", "Mexico", "Egypt", "Kenya",
    "Norway", "Poland", "Greece", "Turkey", "Australia", "Ireland", "Portugal", "Sweden", "Chile", "Peru", "Austria",
    "Denmark", "England",
)  # fmt: skip
PEOPLE = (
    "Einstein", "Obama", "Mozart", "Shakespeare", "Marie Curie", "Napoleon", "Gandhi", "Lincoln", "Picasso", "Darwin",
    "Beethoven", "Elvis", "Madonna", "Cleopatra", "Newton",
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
TOPICS = (
    "spring", "love", "the sea", "football", "cats", "politics", "history", "chess", "money", "friendship", "autumn",
    "Hamlet", "space", "music", "dogs", "a rainy day", "birds", "school", "the moon", "cooking", "trains", "dragons",
    "winter", "bees", "jazz",
)  # fmt: skip
LANGUAGES = (
    "English", "French", "German", "Spanish", "Italian", "Russian", "Dutch", "Polish", "Danish", "Greek", "Portuguese",
    "Arabic", "Mandarin Chinese", "Japanese", "Hindi", "Turkish", "Swedish",
)  # fmt: skip
THINGS = ("it", "this", "the car", "the dog", "the machine", "the door", "the house")
"""Values of ``{thing}`` for a scene without things."""


def as_typed(question: str, rng: random.Random) -> str:
    """A question as people type it: with or without a capital and a question mark."""
    draw = rng.random()
    if draw < 0.45:
        return question
    if draw < 0.75:
        return question[:1].upper() + question[1:]
    bare = question.removesuffix("?").rstrip() if question.endswith("?") else question
    if draw < 0.87:
        return bare
    if draw < 0.95 or not question.endswith("?"):
        return bare[:1].upper() + bare[1:]
    return f"{question} {rng.choice(('please', 'thanks', 'Answer briefly.', 'Thank you!'))}"


def filled(question: str, things: Sequence[str], rng: random.Random) -> str:
    """An unanswerable question with its slots filled.

    Args:
        question: the wording.
        things: values of ``{thing}``, such as "the dog"; :data:`THINGS` if empty.
        rng: random generator.
    """
    slots = {
        "city": rng.choice(CITIES),
        "city2": rng.choice(CITIES),
        "country": rng.choice(COUNTRIES),
        "person": rng.choice(PEOPLE),
        "month": rng.choice(MONTHS),
        "month2": rng.choice(MONTHS),
        "topic": rng.choice(TOPICS),
        "year": rng.randint(1900, 2030),
        "age": rng.randint(5, 90),
        "a": rng.randint(2, 999),
        "b": rng.randint(2, 99),
        "thing": rng.choice(list(things) or THINGS),
    }
    return question.format(**slots)
