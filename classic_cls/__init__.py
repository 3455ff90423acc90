"""Classical image classification, as good and as fast as it can be done today, for scikit-learn users."""

import lazy_loader

__version__ = "0.1.0"

# Every public name, by the file that defines it. Files are read when a name of theirs is first used: importing the
# package costs nothing, and no library that a program doesn't use is imported.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["benchmark", "datasets", "pipelines"],
    submod_attrs={
        "cluster": ["KMeans"],
        "datasets": ["load_dataset", "load_digits", "load_faces", "load_image_folder", "load_npz", "load_textures"],
        "deep": ["NetClassifier", "make_small_cnn", "make_small_resnet"],
        "distributed": ["compute_blocks", "fit_blocks", "predict_blocks", "sample_images", "transform_blocks"],
        "feature_store": ["FeatureStore", "compute_features"],
        "features.bag_of_words": ["BagOfVisualWords", "assign_words", "llc", "soft_assign_words"],
        "features.color_histogram": ["ColorHistogram", "color_histogram"],
        "features.dense_sift": ["DenseSIFT", "dense_sift"],
        "features.fisher_vector": ["FisherVector", "fisher_vector"],
        "features.flip_average": ["FlipAverage"],
        "features.hog": ["HOG", "hog"],
        "features.keypoint_sift": ["KeypointSIFT", "keypoint_sift"],
        "features.patch_kmeans": ["PatchKMeans", "patch_features"],
        "features.read_images": ["ReadImages", "iter_pictures", "read_pictures", "write_skipped"],
        "features.resize": ["Resize", "resize"],
        "features.vlad": ["VLAD", "vlad"],
        "host_predictions": ["HostPredictions"],
        "kernel_map": ["RBFNystroem"],
        "onnx": ["OnnxClassifier"],
        "onnx_export": ["export_onnx"],
        "out_of_core": ["fit_out_of_core"],
        "persistence": ["inspect_model", "load", "save"],
        "pipelines": [
            "PIPELINES",
            "make_baseline",
            "make_bovw_svm",
            "make_color_forest",
            "make_hog_color_svm",
            "make_hog_svm",
            "make_kmeans_clusters",
        ],
        "plots.color_histogram": ["ColorHistogramDisplay"],
        "plots.corruptions": ["CorruptionsDisplay"],
        "plots.disagreements": ["DisagreementsDisplay"],
        "plots.duplicates": ["DuplicatesDisplay"],
        "plots.hog": ["HOGDisplay"],
        "plots.intervals": ["IntervalsDisplay"],
        "plots.label_efficiency": ["LabelEfficiencyDisplay"],
        "plots.mistakes": ["MistakesDisplay"],
        "plots.reject_curve": ["RejectCurveDisplay"],
        "plots.reliability": ["ReliabilityDisplay"],
        "plots.robustness": ["RobustnessDisplay"],
        "plots.visual_words": ["VisualWordsDisplay"],
        "ridge": ["RidgeLOOClassifier"],
        "svm": ["LinearSVC"],
        "to_device": ["ToDevice", "ToHost"],
    },
)
