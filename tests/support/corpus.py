"""The real .h5ad files of the corpus, by name: those that can be opened. The truncated one is in no list."""

FILES = [
    "anndataR_example_all_encodings", "bmmc_cite_rna600_csc_f8_gzip", "conv_pbmc3k_2638x13714_csr_f4_gzip",
    "cxg_schema_valid_csr_int64idx", "dentategyrus100_layers_csr_gzip", "guides10k_csr_int64data_gzip",
    "julia_pbmc7480_userblock512_dense_gzip9", "legacy05_pbmc68k_dense_gzip", "legacy_10x100x32k_h5sparse_csr_gzip",
    "legacy_nan_dense_gzip", "legacy_spatial6k_h5sparse_csr_gzip", "nawijn2021_1500_csr_44obs_nonascii",
    "pbmc5k_protein200_dense_lzf", "sim200x15k_csc_unsorted_none", "smfish4840_dense_contig",
    "wu2020_200_csr_gzip_46obs", "derived/base", "derived/csc_lzf", "derived/csr_bigendian",
    "derived/csr_blosc_zstd_shuffle", "derived/csr_contiguous", "derived/csr_empty_rows", "derived/csr_f16",
    "derived/csr_gzip_shuffle_fletcher32", "derived/csr_i4indices_i8indptr", "derived/csr_libver_latest_extarray",
    "derived/csr_libver_latest_fixedarray", "derived/csr_lz4", "derived/csr_lzf", "derived/csr_nested_group",
    "derived/csr_one_chunk_gzip", "derived/csr_tiny_chunks64_gzip", "derived/csr_u2data", "derived/csr_userblock1024",
    "derived/csr_zstd3", "derived/dense_libver_latest_btree2", "derived/dense_rowchunk_gzip",
    "derived/obs_nullable_string_ordered_nonascii", "edge/archive070_csr_lzf", "edge/boolean_obs",
    "edge/categorical_int_nan", "edge/empty_obs_0cells", "edge/h5mu_disguised_as_h5ad",
    "edge/int32_codes_no_root_encoding", "edge/nonstandard_encoding_csc", "edge/nullable_int_bool",
    "edge/pbmc2638_X_missing", "edge/pbmc2638_X_nnz0", "edge/pbmcsmall80_dense_f8_contig", "edge/unicode_names",
    "edge/zero_vars_85obs",
]  # fmt: skip
