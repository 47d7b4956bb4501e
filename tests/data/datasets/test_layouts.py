"""Every adapter on a few records in exactly the layout in which its dataset is published."""

# ruff: noqa: E501 (lines of annotation files are as long as they are)

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pengi.cli import app
from pengi.data.datasets import DATASETS, Imported, ImportedPart, import_dataset
from pengi.data.manifest import read_manifest
from pengi.data.phrases import Phrases
from pengi.data.questions import QuestionMaker
from pengi.data.tasks import answers_of
from pengi.errors import InputError, ManifestError

Files = dict[str, str]
Rows = list[dict[str, Any]]
AUDIO = "RIFF"  # what a recording holds does not matter to an adapter, as long as it is something

LAYOUTS: dict[str, tuple[Files, Rows]] = {
    "esc50": (
        {
            "meta/esc50.csv": "filename,fold,target,category,esc10,src_file,take\n"
            "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
            "5-9032-A-0.wav,5,12,crackling_fire,False,9032,A\n",
            "audio/1-100032-A-0.wav": AUDIO,
            "audio/5-9032-A-0.wav": AUDIO,
        },
        [
            {"id": "esc50:1-100032-A-0", "events": ["dog"], "attributes": {"fold": 1}, "group": "100032"},
            {"id": "esc50:5-9032-A-0", "events": ["crackling fire"], "split": "test", "license": "CC-BY-NC-3.0"},
        ],
    ),
    "urbansound8k": (
        {
            "metadata/UrbanSound8K.csv": "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
            "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark\n",
            "audio/fold5/100032-3-0-0.wav": AUDIO,
        },
        [{"audio": "urbansound8k/audio/fold5/100032-3-0-0.wav", "events": ["dog bark"], "attributes": {"fold": 5}}],
    ),
    "fsd50k": (
        {
            "FSD50K.ground_truth/eval.csv": 'fname,labels,mids\n37199,"Electric_guitar,Guitar,Music","/m/02sgy,/m/0342h,/m/04rlf"\n',
            "FSD50K.ground_truth/dev.csv": 'fname,labels,mids,split\n64760,"Rain","/m/06mb1",train\n16399,"Wind","/m/03m9d0z",val\n',
            "FSD50K.eval_audio/37199.wav": AUDIO,
            "FSD50K.dev_audio/64760.wav": AUDIO,
            "FSD50K.dev_audio/16399.wav": AUDIO,
        },
        [
            {"id": "fsd50k:37199", "events": ["electric guitar", "guitar", "music"], "split": "test"},
            {"id": "fsd50k:64760", "split": "train"},
            {"id": "fsd50k:16399", "split": "val"},
        ],
    ),
    "audioset": (
        {
            "eval_segments.csv": "# Segments csv created Sun Mar  5 10:54:25 2017\n"
            "# num_ytids=20383, num_segs=20383, num_unique_labels=527, num_positive_labels=51804\n"
            "# YTID, start_seconds, end_seconds, positive_labels\n"
            '--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_"\n'
            '--BfvyPmVMo, 20.000, 30.000, "/m/03l9g"\n',
            "class_labels_indices.csv": 'index,mid,display_name\n0,/m/068hy,"Domestic animals, pets"\n1,/m/07q6cd_,"Squeak"\n2,/m/03l9g,"Hammer"\n',
            "audio/Y--4gqARaEJE.wav": AUDIO,
        },
        [{"id": "audioset:--4gqARaEJE_0", "events": ["domestic animals, pets", "squeak"]}],
    ),
    "dcase2017-task4": (
        {
            "groundtruth_weak_label_testing_set.csv": "-1nilez17Dg_30.000_40.000.wav\t30.000\t40.000\tCar\n"
            "-1nilez17Dg_30.000_40.000.wav\t30.000\t40.000\tAir horn, truck horn\n",
            "unbalanced_train_segments_testing_set_audio_formatted_and_segmented_downloads/Y-1nilez17Dg_30.000_40.000.wav": AUDIO,
        },
        [{"id": "dcase2017-task4:-1nilez17Dg_30.000_40.000", "events": ["car", "air horn, truck horn"]}],
    ),
    "tut2017": (
        {
            "TUT-acoustic-scenes-2017-evaluation/meta.txt": "audio/1245.wav\tcafe/restaurant\ta123\n",
            "TUT-acoustic-scenes-2017-evaluation/audio/1245.wav": AUDIO,
            "TUT-acoustic-scenes-2017-development/meta.txt": "audio/b020_90_100.wav\tbeach\tb020\n",
            "TUT-acoustic-scenes-2017-development/audio/b020_90_100.wav": AUDIO,
        },
        [
            {"id": "tut2017:test-1245", "events": ["cafe or restaurant"], "domain": "scene", "group": "a123"},
            {"id": "tut2017:train-b020_90_100", "events": ["beach"], "split": "train"},
        ],
    ),
    "cochlscene": (
        {"Test/SubwayStation/SubwayStation_user0001_14923412_000.wav": AUDIO, "Train/Bus/Bus_user0002_1_000.wav": AUDIO},
        [{"events": ["subway station"], "split": "test"}, {"events": ["bus"], "split": "train"}],
    ),
    "sesa": (
        {"test/casual_001.wav": AUDIO, "test/gunshot_004.wav": AUDIO, "train/siren_120.wav": AUDIO},
        [{"events": ["everyday sound"]}, {"events": ["gunshot"]}, {"events": ["siren"], "split": "train"}],
    ),
    "gtzan": (
        {"genres/blues/blues.00000.wav": AUDIO, "genres/hiphop/hiphop.00099.wav": AUDIO},
        [{"id": "gtzan:blues.00000", "attributes": {"genre": "blues"}}, {"attributes": {"genre": "hip hop"}}],
    ),
    "gtzan-music-speech": (
        {"music_speech/music_wav/bagpipe.wav": AUDIO, "music_speech/speech_wav/acomic.wav": AUDIO},
        [{"events": ["music"]}, {"events": ["speech"]}],
    ),
    "nsynth": (
        {
            "nsynth-test/examples.json": json.dumps(
                {
                    "string_acoustic_056-047-075": {
                        "qualities": [0, 0, 0, 1, 0, 0, 0, 0, 1, 0], "pitch": 47, "note": 45336,
                        "instrument_source_str": "acoustic", "velocity": 75, "instrument_str": "string_acoustic_056",
                        "instrument": 436, "sample_rate": 16000, "qualities_str": ["fast_decay", "reverb"],
                        "instrument_source": 0, "note_str": "string_acoustic_056-047-075", "instrument_family": 8,
                        "instrument_family_str": "string",
                    },
                    "keyboard_electronic_001-021-127": {
                        "qualities": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "pitch": 21, "note": 299359,
                        "instrument_source_str": "electronic", "velocity": 127,
                        "instrument_str": "keyboard_electronic_001", "instrument": 40, "sample_rate": 16000,
                        "qualities_str": [], "instrument_source": 1, "note_str": "keyboard_electronic_001-021-127",
                        "instrument_family": 4, "instrument_family_str": "keyboard",
                    },
                }
            ),
            "nsynth-test/audio/string_acoustic_056-047-075.wav": AUDIO,
            "nsynth-test/audio/keyboard_electronic_001-021-127.wav": AUDIO,
        },
        [
            {
                "id": "nsynth:string_acoustic_056-047-075",
                "attributes": {
                    "instrument": "string", "source": "acoustic", "qualities": "fast decay, reverb", "pitch": "B2",
                    "midi": 47, "velocity": 75,
                },
                "group": "string_acoustic_056",
            },
            {
                "attributes": {
                    "instrument": "keyboard", "source": "electronic", "pitch": "A0", "midi": 21, "velocity": 127,
                },
            },
        ],
    ),
    "beijing-opera": (
        {"241123__ajaysm__bangu-1.wav": AUDIO, "241187__ajaysm__xiaoluo-12.wav": AUDIO},
        [{"attributes": {"instrument": "clapper-drum"}}, {"attributes": {"instrument": "small gong"}}],
    ),
    "medley-solos-db": (
        {
            "Medley-solos-DB_metadata.csv": "subset,instrument,instrument_id,song_id,uuid4\n"
            "test,distorted electric guitar,1,0,0f702455-0aea-5177-f462-529afc6ae69b\n"
            "training,piano,4,7,59f4fa3e-d64d-52bd-f647-e12607662027\n",
            "Medley-solos-DB_test-1_0f702455-0aea-5177-f462-529afc6ae69b.wav": AUDIO,
            "audio/Medley-solos-DB_training-4_59f4fa3e-d64d-52bd-f647-e12607662027.wav": AUDIO,
        },
        [{"attributes": {"instrument": "distorted electric guitar"}}, {"split": "train", "group": "7"}],
    ),
    "vocalsound": (
        {
            "datafiles/te.json": json.dumps(
                {"data": [{"wav": "/data/sls/vs/audio_16k/m0053_0_throatclearing.wav", "labels": "/m/0dl9sf8"}]}
            ),
            "audio_16k/m0053_0_throatclearing.wav": AUDIO,
        },
        [{"id": "vocalsound:m0053_0_throatclearing", "events": ["throat clearing"], "group": "m0053"}],
    ),
    "crema-d": (
        {"AudioWAV/1001_DFA_ANG_XX.wav": AUDIO},
        [{"attributes": {"emotion": "angry"}, "group": "1001", "domain": "emotion"}],
    ),
    "ravdess": (
        {"Actor_12/03-01-06-01-02-01-12.wav": AUDIO},
        [{"attributes": {"emotion": "fearful"}, "group": "12"}],
    ),
    "meld": (
        {
            "test_sent_emo.csv": "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
            '1,"Why do all you\'re coffee mugs have numbers on the bottom?",Mark,surprise,positive,0,0,3,19,"00:14:38,127","00:14:40,378"\n'
            '2,Oh.,Rachel,neutral,neutral,0,1,3,19,"00:14:40,629","00:14:47,385"\n',
            "output_repeated_splits_test/dia0_utt0.mp4": AUDIO,
        },
        [{"id": "meld:test-dia0_utt0", "attributes": {"emotion": "surprised", "sentiment": "positive"}}],
    ),
    "cmu-mosi": (
        {
            "label.csv": "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
            "03bSnISJMiM,11,A LOT OF SAD PARTS,-1.0,,,,Negative,train\n"
            "tmZoasNr4rU,1,It was fine,0.0,,,,Neutral,test\n",
            "Raw/03bSnISJMiM/11.mp4": AUDIO,
            "Raw/tmZoasNr4rU/1.mp4": AUDIO,
        },
        [
            {"id": "cmu-mosi:03bSnISJMiM-11", "attributes": {"sentiment": "negative"}, "split": "train"},
            {"attributes": {"sentiment": "neutral"}, "split": "test"},
        ],
    ),
    "cmu-mosei": (
        {
            "label.csv": "video_id,clip_id,text,label,annotation,mode,label_T,label_A,label_V\n"
            "-3g5yACwYnA,10,Key is part,1.0,Positive,valid,,,\n",
            "Raw/-3g5yACwYnA/10.mp4": AUDIO,
        },
        [{"attributes": {"sentiment": "positive"}, "split": "val"}],
    ),
    "msp-podcast": (
        {
            "Labels/labels_consensus.csv": "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
            "MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1\n"
            "MSP-PODCAST_0001_0009.wav,X,3.8,3.6,3.8,39,Male,Test1\n"
            "MSP-PODCAST_0002_0033.wav,H,4.0,5.0,4.0,127,Female,Development\n",
            "Audios/MSP-PODCAST_0001_0008.wav": AUDIO,
            "Audios/MSP-PODCAST_0002_0033.wav": AUDIO,
        },
        [
            {"id": "msp-podcast:MSP-PODCAST_0001_0008", "attributes": {"emotion": "neutral"}, "group": "30"},
            {"attributes": {"emotion": "happy"}, "split": "val"},
        ],
    ),
    "speech-commands": (
        {
            "testing_list.txt": "right/bb05582b_nohash_3.wav\n",
            "validation_list.txt": "left/a40c62f1_nohash_0.wav\n",
            "right/bb05582b_nohash_3.wav": AUDIO,
            "left/a40c62f1_nohash_0.wav": AUDIO,
            "left/0a7c2a8d_nohash_0.wav": AUDIO,
            "_background_noise_/pink_noise.wav": AUDIO,
        },
        [
            {"attributes": {"keyword": "left"}, "split": "train", "group": "0a7c2a8d"},
            {"attributes": {"keyword": "left"}, "split": "val"},
            {"attributes": {"keyword": "right"}, "split": "test"},
        ],
    ),
    "librispeech-gender": (
        {
            "SPEAKERS.TXT": "; Some pieces of information about the speakers\n"
            ";ID  |SEX| SUBSET           |MINUTES| NAME\n"
            "121  | F | test-clean       |  8.13 | Nikolle Doolin\n"
            "237  | M | test-clean       |  8.13 | A | name with bars\n",
            "test-clean/121/121726/121-121726-0000.flac": AUDIO,
            "test-clean/237/126133/237-126133-0004.flac": AUDIO,
        },
        [
            {"id": "librispeech-gender:121-121726-0000", "attributes": {"gender": "female"}, "group": "121"},
            {"attributes": {"gender": "male"}},
        ],
    ),
    "audiocaps": (
        {
            "dataset/test.csv": "audiocap_id,youtube_id,start_time,caption\n"
            "103549,7fmOlUlwoNg,20,Constant rattling noise and sharp vibrations\n"
            "103548,7fmOlUlwoNg,20,A rocket flies by followed by a loud explosion\n"
            "103541,6BJ455B1aAs,0,A man talks\n",
            "audio/test/7fmOlUlwoNg.wav": AUDIO,
        },
        [
            {
                "id": "audiocaps:7fmOlUlwoNg_20",
                "captions": [
                    "Constant rattling noise and sharp vibrations",
                    "A rocket flies by followed by a loud explosion",
                ],
            }
        ],
    ),
    "clotho": (
        {
            "clotho_captions_evaluation.csv": "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
            "Santa Motor.wav,A machine whines.,A mechanism revs.,A motor turns.,It hums.,A person uses a drill.\n",
            "evaluation/Santa Motor.wav": AUDIO,
        },
        [
            {
                "id": "clotho:test-Santa Motor",
                "captions": [
                    "A machine whines.", "A mechanism revs.", "A motor turns.", "It hums.", "A person uses a drill."
                ],
            }
        ],
    ),
    "clotho-aqa": (
        {
            "clotho_aqa_test.csv": "file_name,QuestionText,answer,confidence\n"
            "Creaking pier.wav,Is anyone moving?,yes,yes\n"
            "Creaking pier.wav,Is anyone moving?,no,maybe\n"
            "Creaking pier.wav,What is creaking?,pier,yes\n",
            "audio_files/Creaking pier.wav": AUDIO,
        },
        [
            {
                "qa": [
                    {"question": "Is anyone moving?", "answer": "yes"},
                    {"question": "Is anyone moving?", "answer": "no"},
                    {"question": "What is creaking?", "answer": "pier"},
                ]
            }
        ],
    ),
    "mmau": (
        {
            "mmau-test-mini.json": json.dumps(
                [
                    {
                        "id": "3fe64f3d-282c-4bc8-a753-68f8f6c35652",
                        "audio_id": "./test-mini-audios/3fe64f3d-282c-4bc8-a753-68f8f6c35652.wav",
                        "question": "Based on the given audio, identify the source of the speaking voice.",
                        "choices": ["Man", "Woman", "Child", "Robot"], "answer": "Man", "dataset": "AudioSet",
                        "task": "sound", "split": "test-mini", "category": "Reasoning",
                        "sub-category": "Acoustic Source Inference", "difficulty": "medium",
                    }
                ]
            ),
            "test-mini-audios/3fe64f3d-282c-4bc8-a753-68f8f6c35652.wav": AUDIO,
        },
        [
            {
                "choices": ["Man", "Woman", "Child", "Robot"],
                "qa": [
                    {
                        "question": "Based on the given audio, identify the source of the speaking voice.",
                        "answer": "Man",
                    }
                ],
                "attributes": {"task": "sound", "difficulty": "medium"},
            }
        ],
    ),
    "fma": (
        {
            "fma_metadata/tracks.csv": ",album,artist,artist,set,set,track,track,track,track,track,track,track,track\n"
            ",title,id,name,split,subset,genre_top,genres,genres_all,information,language_code,license,tags,title\n"
            "track_id,,,,,,,,,,,,,\n"
            "2,AWOL - A Way Of Life,1,AWOL,training,small,Hip-Hop,[21],[21],,en,Attribution-NonCommercial-ShareAlike 3.0 International,[],Food\n"
            """134,Höfn,77,"Sigur, Rós",test,medium,,"[76, 103]","[76, 10, 103]","<p>Recorded &amp; mixed\n at home</p>",,CC0 1.0 Universal,"['live', 'São Paulo']",Ágætis\n""",
            "fma_metadata/genres.csv": "genre_id,#tracks,parent,title,top_level\n21,12730,0,Hip-Hop,21\n10,13845,0,Pop,10\n"
            "76,1,10,Experimental Pop,10\n103,2,10,Singer-Songwriter,10\n",
            "fma_small/000/000002.mp3": AUDIO,
            "fma_large/fma_large/000/000134.mp3": AUDIO,
        },
        [
            {
                "id": "fma:2", "split": "train", "group": "1", "domain": "music", "attributes": {"genre": "hip hop"},
                "title": "Food", "tags": ["hip hop"], "ship": False,
                "license": "Attribution-NonCommercial-ShareAlike 3.0 International",
            },
            {
                "id": "fma:134", "split": "test", "attributes": {"genre": "pop"}, "title": "Ágætis",
                "tags": ["pop", "experimental pop", "singer songwriter", "live", "São Paulo"],
                "description": "Recorded & mixed at home", "license": "CC0 1.0 Universal",
            },
        ],
    ),
    "wavtext5k": (
        {
            "WavText5K.csv": "view_link,download_link,title,description,fname,tags\n"
            'https://bigsoundbank.com/detail-0100-forest.html,https://bigsoundbank.com/UPLOAD/wav/0100.wav,Forest,"Birds singing, drive away, fly.",0100.wav,\n'
            "https://soundbible.com/604.html,https://soundbible.com/grab.php?id=604&type=wav,Bald Eagle Call, A great call.,bald eagle call_1568.wav,\"['fowl', 'eagle', 'fowl']\"\n",
            "WavText5K/44100/audios/0100.wav": AUDIO,
            "WavText5K/44100/download/bald eagle call_1568.wav": AUDIO,
        },
        [
            {"id": "wavtext5k:0100", "title": "Forest", "description": "Birds singing, drive away, fly.", "split": "train"},
            {"title": "Bald Eagle Call", "tags": ["fowl", "eagle"], "description": "A great call.", "domain": ""},
        ],
    ),
    "macs": (
        {
            "MACS.yaml": "files:\n- filename: park-barcelona-0-0-a.wav\n  annotations:\n"
            "  - annotator_id: 14\n    sentence: birds sing\n    tags: [birds_singing, music]\n"
            "  - annotator_id: 9\n    sentence: Birds are singing while people walk past.\n    tags: [birds_singing, footsteps]\n"
            "- filename: airport-lyon-1095-40158-a.wav\n  annotations:\n"
            "  - annotator_id: 9\n    sentence: adults talking\n    tags:\n    - adults_talking\n",
            "MACS_competence.csv": "9\t0.9\n14\t0.2\n",
            "TAU-urban-acoustic-scenes-2019-development/audio/park-barcelona-0-0-a.wav": AUDIO,
            "TAU-urban-acoustic-scenes-2019-development/audio/airport-lyon-1095-40158-a.wav": AUDIO,
        },
        [
            {
                "id": "macs:park-barcelona-0-0-a", "split": "train", "group": "park-barcelona-0",
                "captions": ["Birds are singing while people walk past.", "birds sing"],
                "events": ["birds singing", "footsteps"], "tags": ["birds singing", "footsteps"],
            },
            {"captions": ["adults talking"], "events": ["adults talking"]},
        ],
    ),
    "sounddescs": (
        {
            "BBCSoundEffects.csv": "location,description,secs,category,CDNumber,CDName,tracknum\n"
            """07066104.wav,"Timber & Wood - Rip saw, carpenters' workshop.",138,Machines,ECD1,Timber,1\n"""
            "NHU05091190.wav,Tawny Owl calls.,60,\"['Nature', 'Birds']\",,,\n"
            "07000000.wav,Not in the lists.,1,,,,\n",
            "train_list.txt": "07066104\n",
            "test_list.txt": "nhu05091190\n",
            "audios/07066104/07066104.wav": AUDIO,
            "audios/nhu05091190/nhu05091190.wav": AUDIO,
        },
        [
            {
                "id": "sounddescs:07066104", "split": "train", "tags": ["Machines"],
                "description": "Timber & Wood - Rip saw, carpenters' workshop.", "license": "RemArc (BBC, non-commercial)",
            },
            {"id": "sounddescs:nhu05091190", "split": "test", "tags": ["Nature", "Birds"]},
        ],
    ),
    "wavcaps": (
        {
            "json_files/AudioSet_SL/as_final.json": json.dumps(
                {
                    "num_captions_per_audio": 1,
                    "data": [
                        {"id": "Yb0RFKhbpFJA.wav", "caption": "Wind blows.", "audio": "wav_path", "duration": 10.0},
                        {"id": "Y7fmOlUlwoNg.wav", "caption": "A rocket flies.", "audio": "wav_path", "duration": 10.0},
                    ],
                }
            ),
            "json_files/FreeSound/fsd_final.json": json.dumps(
                {
                    "num_captions_per_audio": 1,
                    "data": [
                        {
                            "id": "2219", "file_name": "UK Mello.wav", "href": "/people/Tempouser/sounds/2219/",
                            "tags": ["ringtone", "basic"], "description": "A ringtone,\nin mello tone.",
                            "author": "Tempouser", "duration": 3.204375, "caption": "A ringtone is playing.",
                        }
                    ],
                }
            ),
            "json_files/SoundBible/sb_final.json": json.dumps(
                [
                    {
                        "title": "Airplane Landing Airport", "description": "Large airplane landing.", "author": "D. S.",
                        "href": "2219.html", "caption": "An airplane is landing.", "id": "2219", "duration": 14.1424375,
                    }
                ]
            ),
            "json_files/blacklist/blacklist_exclude_test_ac.json": '{"AudioSet": ["Y7fmOlUlwoNg.wav"], "FreeSound": []}',
            "Zip_files/AudioSet_SL/mnt/fast/WavCaps/data/waveforms/AudioSet_SL_flac/Yb0RFKhbpFJA.flac": AUDIO,
            "Zip_files/AudioSet_SL/mnt/fast/WavCaps/data/waveforms/AudioSet_SL_flac/Y7fmOlUlwoNg.flac": AUDIO,
            "FreeSound_flac/2219.flac": AUDIO,
            "SoundBible_flac/2219.flac": AUDIO,
        },
        [
            {"id": "wavcaps:AudioSet_SL/Yb0RFKhbpFJA", "captions": ["Wind blows."], "split": "train", "duration_s": 10.0},
            {"id": "wavcaps:AudioSet_SL/Y7fmOlUlwoNg", "split": "heldout", "group": "7fmOlUlwoNg"},
            {
                "audio": "wavcaps/FreeSound_flac/2219.flac", "title": "UK Mello", "tags": ["ringtone", "basic"],
                "description": "A ringtone, in mello tone.", "captions": ["A ringtone is playing."],
                "group": "freesound:2219",
            },
            {"audio": "wavcaps/SoundBible_flac/2219.flac", "title": "Airplane Landing Airport"},
        ],
    ),
    "freesound": (
        {
            "sounds.csv": "id,name,tags,description,license\n"
            '182395,Dog Bark.wav,dog bark field-recording,"<p>My dog <b>barks</b> &lt;3</p>",http://creativecommons.org/licenses/by/4.0/\n'
            "9032,Regen.aiff,,,http://creativecommons.org/publicdomain/zero/1.0/\n",
            "sounds/182395__ajaysm__dog-bark.wav": AUDIO,
            "sounds/9032.mp3": AUDIO,
        },
        [
            {
                "id": "freesound:182395", "audio": "freesound/sounds/182395__ajaysm__dog-bark.wav", "title": "Dog Bark",
                "tags": ["dog", "bark", "field-recording"], "description": "My dog barks <3", "license": "CC-BY-4.0",
            },
            {"title": "Regen", "license": "CC0-1.0"},
        ],
    ),
    "findsounds": (
        {
            "findsounds.tsv": "File\tTitle\tKeywords\nowl\\Tawny owl.au\tOwl\towl; hoot\nowl/Uhu.wav\tEagle owl\towl\n",
            "owl/Tawny owl.au": AUDIO,
            "owl/Uhu.wav": AUDIO,
        },
        [{"title": "Owl", "tags": ["owl", "hoot"], "license": DATASETS["findsounds"].license}, {"title": "Eagle owl"}],
    ),
    "table": (
        {
            "train/metadata.csv": "file_name,caption_1,caption_2,category,split\n"
            "café.wav,Cups clink.,People chat.,Coffee_shop,train\nrain.wav,It rains.,,\"rain,wind\",validation\n",
            "train/café.wav": AUDIO,
            "train/rain.wav": AUDIO,
        },
        [
            {"captions": ["Cups clink.", "People chat."], "events": ["coffee shop"], "split": "train", "domain": ""},
            {"captions": ["It rains."], "events": ["rain", "wind"], "split": "val"},
        ],
    ),
}  # fmt: skip


AUDIOSET_LABELS = LAYOUTS["audioset"][0]["class_labels_indices.csv"]
SEGMENT = '--4gqARaEJE, 30.000, 40.000, "/m/068hy,/m/07q6cd_"\n'
CAPTIONS = "audiocap_id,youtube_id,start_time,caption\n103549,7fmOlUlwoNg,20,Constant rattling noise\n"
MELD_HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
MELD_ROW = '1,Oh.,Rachel,joy,positive,0,0,3,19,"00:14:40,629","00:14:47,385"\n'
MSP_HEADER = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
CLOTHO = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
TUT = "TUT-acoustic-scenes-2017-"

# What people have instead of, or beside, the layout as published: dataset, files, rows, not found, missing.
VARIANTS: dict[str, tuple[str, Files, Rows, list[str], int]] = {
    "a file name that begins with a blank, in an archive for training alone": (
        "clotho",
        {
            "clotho_captions_development.csv": f'{CLOTHO} Ambience Birds.wav,A.,B.,"C, d.",E.,F.\n',
            "clotho_audio_development/ Ambience Birds.wav": AUDIO,
        },
        [{"id": "clotho:train- Ambience Birds", "split": "train", "captions": ["A.", "B.", "C, d.", "E.", "F."]}],
        ["clotho_captions_evaluation.csv", "clotho_captions_validation.csv"],
        0,
    ),
    "MELD.Raw, whose training archive holds its table": (
        "meld",
        {
            "MELD.Raw/train/train_sent_emo.csv": MELD_HEADER + MELD_ROW,
            "MELD.Raw/train/train_splits/dia0_utt0.mp4": AUDIO,
            "MELD.Raw/train/train_splits/._dia0_utt0.mp4": "junk",
            "MELD.Raw/dev_sent_emo.csv": MELD_HEADER + MELD_ROW,
            "MELD.Raw/dev/dev_splits_complete/dia0_utt0.mp4": AUDIO,
        },
        [
            {"id": "meld:dev-dia0_utt0", "split": "val", "group": "dev-0"},
            {"id": "meld:train-dia0_utt0", "split": "train", "attributes": {"emotion": "happy", "sentiment": "positive"}},
        ],
        ["test_sent_emo.csv"],
        0,
    ),
    "sound tracks taken from the videos, tables in a folder of their own": (
        "meld",
        {
            "labels/test_sent_emo.csv": MELD_HEADER + MELD_ROW,
            "wav/output_repeated_splits_test/dia0_utt0.wav": AUDIO,
            "wav/train_splits/dia0_utt0.wav": AUDIO,
        },
        [{"audio": "meld/wav/output_repeated_splits_test/dia0_utt0.wav"}],
        ["dev_sent_emo.csv", "train_sent_emo.csv"],
        0,
    ),
    "FSD50K with the evaluation recordings alone": (
        "fsd50k",
        {path: content for path, content in LAYOUTS["fsd50k"][0].items() if "dev_audio" not in path},
        [{"id": "fsd50k:37199", "split": "test"}],
        [],
        2,
    ),
    "TUT 2017 as published: evaluate.txt without identifiers, map.txt with them": (
        "tut2017",
        {
            f"{TUT}evaluation/evaluation_setup/evaluate.txt": "audio/0.wav\tbeach\naudio/1245.wav\tcafe/restaurant\n",
            f"{TUT}evaluation/evaluation_setup/map.txt": "audio/0.wav\taudio/b077_0_10.wav\naudio/1245.wav\taudio/a123_10_20.wav\n",
            f"{TUT}evaluation/audio/0.wav": AUDIO,
            f"{TUT}evaluation/audio/1245.wav": AUDIO,
        },
        [
            {"id": "tut2017:test-0", "events": ["beach"], "group": "b077"},
            {"id": "tut2017:test-1245", "events": ["cafe or restaurant"], "group": "a123"},
        ],
        [f"{TUT}development/meta.txt"],
        0,
    ),
    "TUT 2017, development set alone, each archive in a folder of its own": (
        "tut2017",
        {
            f"{TUT}development.meta/{TUT}development/meta.txt": "audio/b020_90_100.wav\tbeach\tb020\n",
            f"{TUT}development.audio.1/{TUT}development/audio/b020_90_100.wav": AUDIO,
        },
        [{"id": "tut2017:train-b020_90_100", "split": "train", "group": "b020"}],
        [f"{TUT}evaluation/meta.txt"],
        0,
    ),
    "LibriSpeech, training part alone": (
        "librispeech-gender",
        {
            "LibriSpeech/SPEAKERS.TXT": LAYOUTS["librispeech-gender"][0]["SPEAKERS.TXT"],
            "LibriSpeech/train-clean-100/121/121726/121-121726-0000.flac": AUDIO,
        },
        [{"split": "train", "attributes": {"gender": "female"}}],
        ["test-*/*/*/*.flac", "dev-*/*/*/*.flac"],
        0,
    ),
    "an AudioSet list with a plain header line": (
        "audioset",
        {
            "class_labels_indices.csv": AUDIOSET_LABELS,
            "balanced_train_segments.csv": f"YTID,start_seconds,end_seconds,positive_labels\n{SEGMENT}",
            "train_wav/Y--4gqARaEJE.wav": AUDIO,
        },
        [{"id": "audioset:--4gqARaEJE_30", "split": "train", "group": "--4gqARaEJE"}],
        ["eval_segments.csv", "unbalanced_train_segments.csv"],
        0,
    ),
    "the unbalanced list, one file empty, the right one by its start": (
        "audioset",
        {
            "csv/class_labels_indices.csv": AUDIOSET_LABELS,
            "csv/unbalanced_train_segments.csv": SEGMENT,
            "audio/--4gqARaEJE_0_10.wav": AUDIO,
            "audio/--4gqARaEJE_30.000_40.000.wav": "",
            "unbalanced_train_segments/part00/--4gqARaEJE_30000_40000.flac": AUDIO,
        },
        [{"audio": "audioset/unbalanced_train_segments/part00/--4gqARaEJE_30000_40000.flac"}],
        ["eval_segments.csv", "balanced_train_segments.csv"],
        0,
    ),
    "AudioCaps 2.0": (
        "audiocaps",
        {"dataset2.0/train.csv": CAPTIONS, "audio/train/7fmOlUlwoNg_20.wav": AUDIO},
        [{"id": "audiocaps:7fmOlUlwoNg_20", "split": "train", "captions": ["Constant rattling noise"]}],
        ["dataset/test.csv", "dataset/val.csv"],
        0,
    ),
    "AudioCaps tables beside the folders, files named by the caption's number": (
        "audiocaps",
        {
            "test.csv": CAPTIONS,
            "val.csv": CAPTIONS.replace("7fmOlUlwoNg", "6BJ455B1aAs"),
            "test/103549.wav": AUDIO,
            "other/103549.wav": AUDIO,
        },
        [{"audio": "audiocaps/test/103549.wav"}],
        ["dataset/train.csv"],
        1,
    ),
    "DCASE 2017 task 4 by the official script": (
        "dcase2017-task4",
        {
            **{path: text for path, text in LAYOUTS["dcase2017-task4"][0].items() if text != AUDIO},
            "groundtruth_weak_label_training_set.csv": "2ceUOv8A3FE_20.000_30.000.wav\t20.000\t30.000\tTrain horn\n",
            "testing_set_testing_set_audio_downloaded/Y-1nilez17Dg.wav": "the whole video",
            "testing_set_testing_set_audio_formatted_and_segmented_downloads/Y-1nilez17Dg_30.000_40.000.wav": AUDIO,
            "training_set_training_set_audio_formatted_and_segmented_downloads\\Y2ceUOv8A3FE_20.000_30.000.wav": AUDIO,
        },
        [
            {
                "audio": "dcase2017-task4/testing_set_testing_set_audio_formatted_and_segmented_downloads/Y-1nilez17Dg_30.000_40.000.wav",
                "events": ["car", "air horn, truck horn"],
            },
            {"id": "dcase2017-task4:2ceUOv8A3FE_20.000_30.000", "split": "train", "group": "2ceUOv8A3FE"},
        ],
        ["groundtruth_release/groundtruth_weak_label_evaluation_set.csv"],
        0,
    ),
    "MSP-Podcast's misspelt table, its other folder and its unknown speakers": (
        "msp-podcast",
        {
            "Labels/labels_concensus.csv": f"{MSP_HEADER}MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,Unknown,Unknown,Validation\n"
            "MSP-PODCAST_0001_0011.wav,H,4.1,4.7,4.0,Unknown,Unknown,Train\n",
            "Audio/MSP-PODCAST_0001_0008.wav": AUDIO,
            "Audio/MSP-PODCAST_0001_0011.wav": AUDIO,
        },
        [
            {"split": "val", "group": "MSP-PODCAST_0001_0008"},
            {"split": "train", "group": "MSP-PODCAST_0001_0011"},
        ],
        [],
        0,
    ),
    "GTZAN from Kaggle, with both forms of a track": (
        "gtzan",
        {
            "Data/genres_original/blues/blues.00000.au": AUDIO,
            "Data/genres_original/blues/blues.00000.wav": AUDIO,
            "Data/genres_original/jazz/jazz.00054.wav": "",
        },
        [{"audio": "gtzan/Data/genres_original/blues/blues.00000.wav", "attributes": {"genre": "blues"}}],
        [],
        1,
    ),
    "UrbanSound8K from Kaggle": (
        "urbansound8k",
        {"UrbanSound8K.csv": LAYOUTS["urbansound8k"][0]["metadata/UrbanSound8K.csv"], "fold5/100032-3-0-0.wav": AUDIO},
        [{"audio": "urbansound8k/fold5/100032-3-0-0.wav", "group": "100032"}],
        [],
        0,
    ),
    "the questions of MMAU beside a folder of recordings, one of which is missing": (
        "mmau",
        {
            "mmau-test-mini.json": json.dumps(
                [
                    {"id": name, "audio_id": f"./test-mini-audios/{name}.wav", "question": "Who speaks?",
                     "choices": ["Man", "Woman"], "answer": "Man"}
                    for name in ("3fe64f3d", "72fb5481")
                ]
            ),
            "data/72fb5481.wav": AUDIO,
        },
        [{"id": "mmau:72fb5481", "qa": [{"question": "Who speaks?", "answer": "Man"}]}],
        [],
        1,
    ),
    "CMU-MOSI with a missing video": (
        "cmu-mosi",
        {
            "MOSI/label.csv": LAYOUTS["cmu-mosi"][0]["label.csv"],
            "MOSI/Raw/tmZoasNr4rU/1.mp4": AUDIO,
            "MOSI/Raw/tmZoasNr4rU/11.mp4": AUDIO,
        },
        [{"id": "cmu-mosi:tmZoasNr4rU-1", "split": "test"}],
        [],
        1,
    ),
}  # fmt: skip


def laid_out(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def import_into(tmp_path: Path, name: str, files: Files, folder: str = "") -> tuple[Imported, Rows]:
    out = tmp_path / "m.jsonl"
    found = import_dataset(name, laid_out(tmp_path / name, files) / folder, out)
    return found, [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_every_dataset_has_a_fixture() -> None:
    assert LAYOUTS.keys() == DATASETS.keys()


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_layout_becomes_a_manifest(tmp_path: Path, name: str) -> None:
    files, expected = LAYOUTS[name]
    _, rows = import_into(tmp_path, name, files)
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        assert {field: row[field] for field in wanted} == wanted
    # The manifest is one of ours: it is read back with every recording in its place.
    assert len(read_manifest(tmp_path / "m.jsonl")) == len(expected)


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_empty_folder_gets_one_sentence_that_names_the_missing_file(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    root.mkdir()
    with pytest.raises(ManifestError) as caught:
        import_dataset(name, root, tmp_path / "m.jsonl")
    message = str(caught.value)
    assert message.startswith(f"{name}: there is no '")
    assert DATASETS[name].home in message
    assert "\n" not in message
    assert not (tmp_path / "m.jsonl").exists()


def broken(name: str, path: str, old: str, new: str) -> Files:
    files = dict(LAYOUTS[name][0])
    assert old in files[path]
    files[path] = files[path].replace(old, new)
    return files


ESC = "meta/esc50.csv"


@pytest.mark.parametrize(
    ("name", "files", "sentence"),
    [
        ("esc50", broken("esc50", ESC, "9032-A-0.wav,5", "9032-A-0.wav,6"), "line 3: fold '6' is unknown; the dataset has folds 1 to 5"),
        ("urbansound8k", broken("urbansound8k", "metadata/UrbanSound8K.csv", ",5,3,", ",x,3,"), "line 2: fold 'x' is unknown"),
        ("esc50", broken("esc50", ESC, "5-9032-A-0", "1-100032-A-0"), "line 3: '1-100032-A-0' is already in meta/esc50.csv, line 2"),
        ("esc50", broken("esc50", ESC, "category", "label"), "meta/esc50.csv, line 2 has no 'category'; it has filename"),
        ("esc50", broken("esc50", ESC, "1-100032-A-0.wav,1", "1-100032-A-0.wav,extra,1"), "line 2: more fields than there are columns"),
        ("esc50", {ESC: "filename,fold,category,src_file\n"}, "esc50' has no records"),
        ("audioset", broken("audioset", "eval_segments.csv", " 20.000", " twenty"), "line 5: start_seconds 'twenty' is not a number"),
        ("nsynth", {"nsynth-test/examples.json": '{"note": 5}'}, "record 1 is not an object with fields"),
        ("mmau", {"mmau-test-mini.json": "5"}, "mmau-test-mini.json, not a list of records"),
        ("mmau", broken("mmau", "mmau-test-mini.json", '"answer"', '"question": 5, "answer"'), "record 1: a field is not as published: 'int'"),
        ("mmau", {"mmau-test-mini.json": '[{"id": 1, "audio_id": "a", "question": null}]'}, "record 1 has no 'question'"),
        ("esc50", broken("esc50", ESC, ",dog,True,100032,A", ""), "line 2: fewer fields than there are columns"),
        ("crema-d", {"AudioWAV/1001_DFA_XXX_XX.wav": AUDIO}, "emotion 'XXX' is unknown; the dataset has ANG, DIS"),
        ("crema-d", {"AudioWAV/1001_DFA.wav": AUDIO}, "the name must have 4 parts between '_'"),
        ("audioset", broken("audioset", "eval_segments.csv", "/m/03l9g", "/m/none"), "line 5: class '/m/none' is unknown"),
        ("mmau", {"mmau-test-mini.json": "[{"}, "cannot be read"),
        ("librispeech-gender", broken("librispeech-gender", "SPEAKERS.TXT", "121  |", "122  |"), "speaker '121' is not in SPEAKERS.TXT"),
    ],
)  # fmt: skip
def test_a_malformed_dataset_gets_one_clear_sentence(tmp_path: Path, name: str, files: Files, sentence: str) -> None:
    with pytest.raises(ManifestError) as caught:
        import_into(tmp_path, name, files)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_datasets_are_read_as_people_have_them(tmp_path: Path, variant: str) -> None:
    name, files, expected, absent, missing = VARIANTS[variant]
    found, rows = import_into(tmp_path, name, files)
    assert [{field: row[field] for field in wanted} for row, wanted in zip(rows, expected, strict=True)] == expected
    assert [part.name for part in found.parts if not part.found] == absent
    assert found.missing == missing


@pytest.mark.parametrize(
    "file",
    [
        "--4gqARaEJE.wav", "Y--4gqARaEJE.flac", "--4gqARaEJE_30.wav", "Y--4gqARaEJE_30.000_40.000.m4a",
        "--4gqARaEJE_30000.opus", "--4gqARaEJE_30000_40000.wav", "--4gqARaEJE_30-40.mp3", "--4gqARaEJE.mp4",
    ],
)  # fmt: skip
@pytest.mark.parametrize("folder", ["", "audio/", "balanced_train_segments/", "audio/train/part_3/"])
def test_pieces_of_videos_are_found_under_the_names_that_scripts_give(tmp_path: Path, folder: str, file: str) -> None:
    files = {"class_labels_indices.csv": AUDIOSET_LABELS, "eval_segments.csv": SEGMENT, f"{folder}{file}": AUDIO}
    _, rows = import_into(tmp_path, "audioset", files)
    assert [row["audio"] for row in rows] == [f"audioset/{folder}{file}"]


@pytest.mark.parametrize("file", ["--4gqARaEJE_40_50.wav", "x--4gqARaEJE.wav", "--4gqARaEJEx.wav", "--4gqARaEJE.txt"])
def test_other_pieces_and_other_videos_are_not_taken(tmp_path: Path, file: str) -> None:
    files = {"class_labels_indices.csv": AUDIOSET_LABELS, "eval_segments.csv": SEGMENT, file: AUDIO}
    with pytest.raises(
        ManifestError, match=r"none of the 1 recordings is in .*; the first missing one is '--4gqARaEJE_30'"
    ):
        import_into(tmp_path, "audioset", files)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_folder_around_the_archives_own_folder_will_do(tmp_path: Path, name: str) -> None:
    files, expected = LAYOUTS[name]
    (tmp_path / name / "another").mkdir(parents=True)
    _, rows = import_into(tmp_path, name, {f"Archive/{path}": content for path, content in files.items()})
    assert len(rows) == len(expected)


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_recording_that_is_missing_or_empty_is_counted_and_does_not_stop_the_rest(
    tmp_path: Path, name: str
) -> None:
    files, expected = LAYOUTS[name]
    recordings = [path for path, content in files.items() if content == AUDIO and not path.startswith("_")]
    if len(recordings) < 2:
        with pytest.raises(ManifestError, match=r"none of the \d recordings is in"):
            import_into(tmp_path, name, {**files, recordings[0]: ""})
        return
    found, rows = import_into(tmp_path, name, {**files, recordings[0]: ""})
    assert len(rows) == len(expected) - 1
    assert (found.missing, sum(part.missing for part in found.parts), len(found.examples)) == (1, 1, 1)


def test_a_name_that_no_file_can_have_is_a_missing_recording(tmp_path: Path) -> None:
    files = LAYOUTS["clotho"][0]
    captions = "clotho_captions_evaluation.csv"
    more = "".join(f"{name}.wav,a,b,c,d,e\n" for name in ("x" * 300, "null\0byte"))
    found, rows = import_into(tmp_path, "clotho", {**files, captions: f"{files[captions]}{more}"})
    assert (len(rows), found.missing) == (1, 2)


@pytest.mark.parametrize("name", LAYOUTS)
def test_files_that_macos_leaves_are_no_clips(tmp_path: Path, name: str) -> None:
    files, expected = LAYOUTS[name]
    left = {str(Path(path).with_name(f"._{Path(path).name}")): "junk" for path in files}
    found, rows = import_into(tmp_path, name, {**files, **left, **{f"__MACOSX/{path}": "junk" for path in left}})
    assert (len(rows), found.missing) == (len(expected), 1 if name in ("audioset", "audiocaps", "meld") else 0)


def test_two_folders_that_both_hold_the_dataset_are_named(tmp_path: Path) -> None:
    files = LAYOUTS["esc50"][0]
    twice = {f"{folder}/{path}": content for folder in ("ESC-50", "ESC-50-master") for path, content in files.items()}
    with pytest.raises(ManifestError, match=r"in several folders .*'ESC-50', 'ESC-50-master'.*; name one of them"):
        import_into(tmp_path, "esc50", twice)


def test_the_folder_of_one_part_will_do(tmp_path: Path) -> None:
    found, rows = import_into(tmp_path, "tut2017", LAYOUTS["tut2017"][0], "TUT-acoustic-scenes-2017-development")
    assert [row["id"] for row in rows] == ["tut2017:train-b020_90_100"]
    assert [part.found for part in found.parts] == [False, True]


def test_what_was_found_and_what_not_is_named(tmp_path: Path) -> None:
    found, _ = import_into(tmp_path, "meld", LAYOUTS["meld"][0])
    assert found.parts == (
        ImportedPart("test_sent_emo.csv", "test", found=True, clips=1, missing=1),
        ImportedPart("dev_sent_emo.csv", "val", found=False),
        ImportedPart("train_sent_emo.csv", "train", found=False),
    )
    assert (found.splits, found.missing) == ({"test": 1}, 1)
    assert found.examples == ("output_repeated_splits_test/dia0_utt1.mp4",)


def test_records_that_no_task_uses_are_counted(tmp_path: Path) -> None:
    found, _ = import_into(tmp_path, "msp-podcast", LAYOUTS["msp-podcast"][0])
    assert [(part.clips, part.unused) for part in found.parts] == [(2, 1)]


def test_an_unknown_dataset_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'esc50'"):
        import_dataset("esc-50", tmp_path, tmp_path / "m.jsonl")
    with pytest.raises(InputError, match="there is no folder"):
        import_dataset("esc50", tmp_path / "nowhere", tmp_path / "m.jsonl")


def test_a_notes_velocity_is_a_task(tmp_path: Path) -> None:
    import_into(tmp_path, "nsynth", LAYOUTS["nsynth"][0])
    clips = read_manifest(tmp_path / "m.jsonl")
    assert [answers_of(clip, "velocity") for clip in clips] == [("75",), ("127",)]
    plain = clips[1]
    notes = QuestionMaker(Phrases({}), weights={"note": 1.0}).about(plain, random.Random(0), 1)
    assert [pair.target for pair in notes] == ["keyboard, pitch A0, velocity 127"]


def test_the_command_says_what_was_found_and_what_not(tmp_path: Path) -> None:
    root, out = laid_out(tmp_path / "meld", LAYOUTS["meld"][0]), tmp_path / "m.jsonl"
    run = CliRunner().invoke(app, ["data", "import", "meld", "--root", str(root), "--out", str(out)])
    assert run.stdout.splitlines() == [
        f"{out}: 1 test; MELD, GPL-3.0",
        "found: test_sent_emo.csv (1 clip, 1 missing)",
        "not found: dev_sent_emo.csv (val), train_sent_emo.csv (train)",
        f"missing in {root}: 1 recording, such as output_repeated_splits_test/dia0_utt1.mp4",
    ]
    run = CliRunner().invoke(app, ["data", "import", "meld", "--root", str(root), "--out", str(out), "--json"])
    said = json.loads(run.stdout)
    assert [(part["name"], part["found"], part["clips"], part["missing"]) for part in said["parts"]] == [
        ("test_sent_emo.csv", True, 1, 1), ("dev_sent_emo.csv", False, 0, 0), ("train_sent_emo.csv", False, 0, 0),
    ]  # fmt: skip
