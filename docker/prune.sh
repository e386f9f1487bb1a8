#!/bin/sh
# Remove from a folder of installed packages what nobody needs at run time: headers, tests, tools, static libraries.
# Both images use it: prune.sh SITE_PACKAGES
set -eu
site="$1"
rm -rf "$site/torch/include" "$site/torch/test" "$site/torch/share/cmake"
find "$site/torch/bin" -type f ! -name torch_shm_manager -delete
find "$site/torch/lib" -name '*.a' -delete
for package in pandas scipy sklearn statsmodels skimage nilearn sympy networkx matplotlib mpl_toolkits bids nibabel; do
    find "$site/$package" -depth -type d -name tests -exec rm -rf {} +
done
