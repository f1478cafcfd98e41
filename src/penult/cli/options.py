"""Options of the command line that one or two commands take: their names and their help.

Options that come in groups stand in `penult.cli.option_groups`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from penult.cli.spread import option
from penult.heads.refit.registry import REFITS
from penult.heads.select.registry import SELECTIONS
from penult.plotting import Format
from penult.runs.tune.training import LOSSES

# What several groups or commands share.

TrustCheckpoint = Annotated[
    bool,
    option(
        "Unpickle a checkpoint that holds more than tensors. This runs the code in it: give it "
        "only for files whose makers you trust.",
        "--trust-checkpoint",
    ),
]
Device = Annotated[
    str, option("auto, cpu, cuda, cuda:1 and so on; auto takes CUDA where there is one.")
]
EvalSpec = Annotated[
    str | None,
    option(
        "Data on which accuracies are measured, preferably images that the network was not "
        "trained on.",
        "--eval",
    ),
]
AsJson = Annotated[
    bool, option("Print one JSON document to standard output, and nothing else.", "--json")
]


# demo, analyze

ModelSpec = Annotated[
    str,
    typer.Argument(
        help="file.py:factory, package.module:factory, torchvision:NAME, timm:NAME or hf:NAME; "
        "an ONNX file, NETWORK.onnx; or a features file or folder, then without DATA."
    ),
]
DataSpec = Annotated[
    str | None,
    typer.Argument(
        help="A folder, zip or tar with a folder of images for each class; a table (CSV, TSV, "
        "JSON lines, Parquet) of images or texts and labels; tar shards; hf:NAME or "
        "torchvision:NAME; file.py:function that returns a data set; or `digits`."
    ),
]
Out = Annotated[
    Path, option("The run folder. If it holds an interrupted run, that run is resumed.")
]
FrequencyTop = Annotated[
    str | None,
    option(
        "The score `frequency` counts which features are among a sample's largest: how many of "
        "them (a number), or as many as make up a fraction of the sample's activation; by default "
        "as many as the subspace keeps."
    ),
]
Seed = Annotated[
    int,
    option(
        "Seed of the random control, of --views, and of the parts that are judged in turn where "
        "there is no --eval."
    ),
]
Overwrite = Annotated[
    bool, option("Replace the run in --out if it is of something else.", "--overwrite")
]
Cluster = Annotated[
    str | None,
    option(
        "Let several processes pass the images through the network, by Ray: alone on this machine, "
        "with an ADDRESS (HOST:PORT, or auto) on the cluster that runs there.",
        "--cluster",
    ),
]
Exchange = Annotated[
    str | None,
    option(
        "Address of object storage, such as s3://bucket/folder, or of a folder, through which the "
        "workers of --cluster hand over their files where they do not see --out.",
        "--exchange",
    ),
]
ClusterFit = Annotated[
    str | None,
    option(
        "Let several processes hold the features and make the passes of the fit over them, by Ray: "
        "alone on this machine, with an ADDRESS (HOST:PORT, or auto) on the cluster there.",
        "--cluster",
    ),
]
NoFit = Annotated[
    bool, option("Leave out the sparse heads whose weights are fitted anew.", "--no-fit")
]

# fit

FeaturesPath = Annotated[
    Path,
    typer.Argument(
        help="A features file, a folder of shards, or a run's features/train; or a run folder, to "
        "which heads of further sizes are added.",
        metavar="FEATURES | RUN",
    ),
]
Folder = Annotated[Path | None, option("Folder for the heads; none if they are added to a run.")]
EvalFeatures = Annotated[
    Path | None, option("Features on which accuracies are measured.", "--eval")
]
Sizes = Annotated[
    str | None,
    option(
        "Features per class: numbers, or ranges like 1-20. By default 1,2,3,5,8,10,15,20, and then "
        "32, 64 and so on until a head is good enough.",
        "-k",
    ),
]
Selection = Annotated[str, option("How features are chosen.", "--select", choices=SELECTIONS)]
Budget = Annotated[
    Literal["each", "mean"], option("`each`: k features for every class; `mean`: k on average.")
]
Refit = Annotated[str, option("How the weights of a head are fitted.", choices=REFITS)]
FitLabels = Annotated[
    bool, option("Fit to the labels rather than to the network's own probabilities.", "--labels")
]
MaxFeatures = Annotated[
    int | None, option("At most this many different features for all classes together.")
]
Pool = Annotated[
    int | None,
    option("Exactly this many different features, which all classes share; each reads k of them."),
]
AlsoFeatures = Annotated[
    Path | None,
    option(
        "Further features of the same network, labelled or not, that the heads are fitted to as "
        "well; accuracies are never measured on them.",
        "--also",
    ),
]
Also = Annotated[
    str | None,
    option(
        "Further images for the network (or features), labelled or not, that the heads are fitted "
        "to as well; accuracies are never measured on them.",
        "--also",
    ),
]
ViewsOf = Annotated[
    int,
    option(
        "Further passes over the images, cropped and mirrored as far as the network's accuracy "
        "survives it, that the heads are fitted to as well.",
        "--views",
    ),
]
Prior = Annotated[
    float | None,
    option(
        "How strongly the weights are drawn towards the network's own: 0 not at all, 1 strongly. "
        "By default strongly with few samples and next to nothing with many."
    ),
]
TimeLimit = Annotated[
    str | None,
    option(
        "Time after which no further head is fitted, such as 90s, 10m or 1h; those that are done "
        "are kept, the largest first. A pass over images is never cut short."
    ),
]
Tolerance = Annotated[
    float | None,
    option(
        "Pick the smallest head that loses at most this fraction of accuracy with 95 % confidence."
    ),
]

# show, and all that open a run

RunFolder = Annotated[Path, typer.Argument(help="A run folder.")]
Score = Annotated[
    str | None,
    option(
        "Whose features are listed: an influence score, or curvature for the fitted heads.  "
        "[default: what keeps most accuracy]"
    ),
]
K = Annotated[int | None, option("Features per class that are listed.", "-k")]
Classes = Annotated[
    list[str] | None, option("List this class; may be given several times.", "--class")
]
CsvFolder = Annotated[
    Path | None,
    option(
        "Write tables to this folder: predictions.csv with a row for each image, mistakes.csv, "
        "classes.csv and, after `penult measure`, measures.csv.",
        "--csv",
    ),
]

# measure

Measured = Annotated[
    list[str],
    typer.Argument(
        help="A run folder; with --compare two or more; with --layer or --layers MODEL and DATA.",
        metavar="RUN... | MODEL DATA",
    ),
]
Compare = Annotated[bool, option("Measure several runs and line them up.", "--compare")]
Plots = Annotated[Path | None, option("Write plots to this folder.", "--plots")]
PlotFormat = Annotated[Format, option("Format of the plots.", "--plot-format")]
Fractions = Annotated[
    list[float] | None,
    option("Fraction of the activation, for Ψ; may be given several times.", "--fraction"),
]
SetSize = Annotated[int, option("Features per class of the sets that are compared.", "-k")]
Lost = Annotated[
    float,
    option("Fraction of accuracy that the smallest sufficient head may lose.", "--tolerance"),
]
MeasureSeed = Annotated[int, option("Seed of everything that is drawn at random.", "--seed")]

# tune

HeadSize = Annotated[int, option("Features per class of the head.", "-k")]
Select = Annotated[
    str | None,
    option(
        "How the head's features were chosen; by default the head of that k which is best on the "
        "analysed data."
    ),
]
HeadOnly = Annotated[
    bool, option("Fit the head alone, from the run's features; leave the network.", "--head-only")
]
Epochs = Annotated[
    int | None, option("Passes over the images; by default 3, or more if there are few images.")
]
StepSize = Annotated[int, option("Images in one step.", "--batch-size")]
Rate = Annotated[
    float | None,
    option(
        "How far a parameter may move in one step, as a fraction of its tensor's size; by default "
        "it follows from the number of steps."
    ),
]
Loss = Annotated[
    str,
    option(
        "`distill` follows the network's own probabilities, `labels` the labels.", choices=LOSSES
    ),
]
Augment = Annotated[
    str,
    option(
        "auto, none, or some of flip,crop; auto takes those that the network's accuracy survives."
    ),
]
TrainDtype = Annotated[
    Literal["float32", "bfloat16"], option("Precision in which the network runs.", "--dtype")
]
Workers = Annotated[
    int | None, option("Processes that decode images; by default none on the CPU, else up to 8.")
]
TuneSeed = Annotated[
    int, option("Seed of the split, the order of the images and the augmentation.", "--seed")
]
TrainSeed = Annotated[
    int,
    option("Seed of the training: another one gives another network of the same kind.", "--seed"),
]
ReplaceTuned = Annotated[
    bool, option("Replace what was tuned before with other options.", "--overwrite")
]

# report, explain

Images = Annotated[
    int | None, option("Images in each list; by default 8, or fewer if there are very many lists.")
]
Page = Annotated[Path | None, option("The page; by default RUN/report.html.")]
RetakePictures = Annotated[
    bool, option("Take the small pictures again although the run has them.", "--overwrite")
]
ImageName = Annotated[
    str,
    typer.Argument(
        help="An image file (a text, for a network of texts), the name of a sample in the run's "
        "data, or eval:NUMBER, train:NUMBER.",
        metavar="IMAGE",
    ),
]
ExplainedClass = Annotated[
    str | None,
    option("Explain the logit of this class; by default of the predicted class.", "--class"),
]
Against = Annotated[
    str | None, option("Explain what separates the class from this one, by name or number.")
]
Fast = Annotated[
    bool, option("Take a small sufficient reason quickly, not the smallest there is.", "--fast")
]
PictureFile = Annotated[
    Path | None,
    option("The picture: FILE.png, FILE.svg or FILE.pdf; by default a PNG in RUN/explained."),
]
