# gnuplot: perplexity against size, from bench/results.csv to docs/results.svg
set terminal svg size 720,420 font "sans-serif,13" background "white"
set output "docs/results.svg"
set datafile separator ","
set title "Perplexity against size"
set xlabel "bits per weight, all tensors, from bytes on disk"
set ylabel "perplexity (log scale)"
set logscale y
set xrange [1:6.8]
set grid
set key off
plot "bench/results.csv" using 3:4 every ::1 with points pt 7 ps 0.9 lc rgb "#20609f", \
     "" using 3:4:(stringcolumn(1)) every ::1 with labels left offset 0.8,0.4 font ",11"
