"""The comparison of methods: equal tuning, several seeds, every raw number kept."""
