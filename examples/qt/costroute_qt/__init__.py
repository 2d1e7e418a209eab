"""A window for costroute-rt, to copy from: PySide6 in front, the runtime's jobs behind.

bridge.py       the runtime, in threads of its own; everything it says arrives as a signal
window.py       what the user sees, and what happens when something is pressed
controls.py     prompt, seed and time, with the route as they change
time_slider.py  the slider over a plot of what time buys
canvas.py       the image, its preview and the countdown
history.py      the folder of finished images, as a strip of thumbnails
words.py        times, qualities and errors as people read them
look.py         colours, light and dark
"""
